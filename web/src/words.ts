/** Every word that the page shows, in one table. {name} is filled in. */
import { computed, signal } from "@preact/signals";

export type Language = "en" | "ru" | "zh";

const TABLE = {
  newChat: ["New conversation", "Новый разговор", "新对话"],
  conversations: ["Conversations", "Разговоры", "对话"],
  noConversations: ["Nothing kept yet.", "Пока ничего нет.", "暂无对话。"],
  keptHere: ["Kept in this browser only.", "Хранится только в этом браузере.", "仅保存在此浏览器中。"],
  untitled: ["Untitled", "Без названия", "未命名"],
  rename: ["Rename", "Переименовать", "重命名"],
  delete: ["Delete", "Удалить", "删除"],
  deleteAsk: ["Delete “{title}”?", "Удалить «{title}»?", "删除“{title}”？"],
  export: ["Export", "Сохранить в файл", "导出"],
  import: ["Import", "Открыть файл", "导入"],
  importBad: [
    "{name} is no conversation of this page.",
    "{name} — не разговор этой страницы.",
    "{name} 不是本页面导出的对话。",
  ],
  settings: ["Settings", "Настройки", "设置"],
  close: ["Close", "Закрыть", "关闭"],
  cancel: ["Cancel", "Отмена", "取消"],
  save: ["Save", "Сохранить", "保存"],
  menu: ["Conversations", "Список разговоров", "对话列表"],
  welcome: ["What shall we look at?", "О чём поговорим?", "想聊些什么？"],
  welcomeMore: [
    "Talk, type, or drop a picture, a sound or a video.",
    "Говорите, пишите или перетащите картинку, звук или видео.",
    "说话、打字，或拖入图片、声音或视频。",
  ],
  talk: ["Talk", "Говорить", "语音对话"],
  endTalk: ["End", "Закончить", "结束"],
  hold: ["Hold to talk", "Удерживайте, чтобы говорить", "按住说话"],
  holdKey: ["or hold the space bar", "или пробел", "或按住空格键"],
  mute: ["Mute microphone", "Выключить микрофон", "静音"],
  unmute: ["Unmute microphone", "Включить микрофон", "取消静音"],
  camera: ["Camera", "Камера", "摄像头"],
  screen: ["Share screen", "Показать экран", "共享屏幕"],
  stopCamera: ["Stop showing", "Не показывать", "停止画面"],
  attach: ["Add files", "Добавить файлы", "添加文件"],
  removeFile: ["Remove {name}", "Убрать {name}", "移除 {name}"],
  compose: ["Ask anything", "Спросите что-нибудь", "输入问题"],
  send: ["Send", "Отправить", "发送"],
  stop: ["Stop", "Остановить", "停止"],
  dropHere: ["Drop to add", "Отпустите, чтобы добавить", "松开以添加"],
  you: ["You", "Вы", "你"],
  model: ["Model", "Модель", "模型"],
  copy: ["Copy", "Копировать", "复制"],
  copied: ["Copied", "Скопировано", "已复制"],
  edit: ["Edit and ask again", "Изменить и спросить снова", "修改后重问"],
  again: ["Answer again", "Ответить снова", "重新回答"],
  replay: ["Play", "Прослушать", "播放"],
  stopReplay: ["Stop playing", "Остановить звук", "停止播放"],
  download: ["Download sound", "Скачать звук", "下载声音"],
  details: ["Timeline", "Ход ответа", "时间线"],
  unheard: ["written, not heard", "написано, но не прозвучало", "已写出但未播放"],
  spokenQuestion: ["(spoken)", "(голосом)", "（语音）"],
  connecting: ["Connecting", "Соединение", "正在连接"],
  listening: ["Listening", "Слушаю", "正在聆听"],
  hearing: ["Hearing you", "Слышу вас", "听到你在说话"],
  thinking: ["Thinking", "Думаю", "正在思考"],
  speaking: ["Speaking", "Говорю", "正在回答"],
  muted: ["Microphone off", "Микрофон выключен", "麦克风已关闭"],
  ready: ["Ready", "Готово", "就绪"],
  pressToTalk: ["Hold to talk", "Удерживайте, чтобы говорить", "按住说话"],
  waiting: ["Model busy, {place} before you", "Модель занята, перед вами: {place}", "模型繁忙，前面还有 {place} 个请求"],
  busy: ["The model is busy. Asking again in {seconds} s.", "Модель занята. Повтор через {seconds} с.", "模型繁忙，{seconds} 秒后重试。"],
  reading: ["Reading {done} of {total} tokens", "Читаю {done} из {total} токенов", "正在读取 {done}/{total} 个词元"],
  sending: ["Sending {size}", "Отправляю {size}", "正在发送 {size}"],
  interrupted: ["Interrupted", "Прервано", "已打断"],
  stopped: ["Stopped", "Остановлено", "已停止"],
  failed: ["No answer: {why}", "Нет ответа: {why}", "未能回答：{why}"],
  broken: ["The page was closed in the middle of this answer.", "Страница закрылась посреди ответа.", "回答中途页面被关闭。"],
  unreachable: ["the server cannot be reached", "сервер недоступен", "无法连接服务器"],
  brokenOff: ["the answer broke off", "ответ оборвался", "回答中断"],
  loading: ["The model is being loaded.", "Модель загружается.", "正在加载模型。"],
  away: ["The server does not answer. Trying again.", "Сервер не отвечает. Пробую снова.", "服务器无响应，正在重试。"],
  lost: [
    "The connection was lost. What you say now is not heard.",
    "Связь потеряна. То, что вы скажете сейчас, не услышат.",
    "连接已断开，现在说的话不会被听到。",
  ],
  back: ["Connected again; the conversation goes on.", "Связь восстановлена, разговор продолжается.", "已重新连接，对话继续。"],
  slow: [
    "The network is slow; some of what you say is not heard.",
    "Сеть медленная: часть сказанного не слышна.",
    "网络较慢，部分语音可能听不到。",
  ],
  micRefused: [
    "The microphone was refused. Allow it in the address bar, then press Talk again.",
    "Доступ к микрофону запрещён. Разрешите его в адресной строке и нажмите «Говорить» снова.",
    "麦克风权限被拒绝。请在地址栏中允许，然后再次点击语音对话。",
  ],
  micMissing: ["There is no microphone.", "Микрофон не найден.", "未找到麦克风。"],
  micLost: ["The microphone is gone; the browser's own choice is used.", "Микрофон отключён; взят другой.", "麦克风已断开，改用默认设备。"],
  deviceBusy: ["Another program holds the device: {name}.", "Устройство занято другой программой: {name}.", "设备被其他程序占用：{name}。"],
  cameraRefused: ["The camera was refused.", "Доступ к камере запрещён.", "摄像头权限被拒绝。"],
  cameraMissing: ["There is no camera.", "Камера не найдена.", "未找到摄像头。"],
  insecure: [
    "A browser gives the microphone to pages of https or of this machine only.",
    "Микрофон доступен только страницам https или этого компьютера.",
    "浏览器只允许 https 或本机页面使用麦克风。",
  ],
  keyWanted: ["This server wants a key", "Серверу нужен ключ", "此服务器需要密钥"],
  key: ["Key", "Ключ", "密钥"],
  keyWrong: ["The server does not know this key.", "Сервер не знает такого ключа.", "服务器不认识此密钥。"],
  keyKept: ["Kept until this tab is closed.", "Хранится, пока открыта вкладка.", "保留到此标签页关闭。"],
  tooLarge: ["{name} is {size}; one question may bring {most}.", "{name}: {size}; в один вопрос помещается {most}.", "{name} 为 {size}；一次提问最多 {most}。"],
  notRead: ["{name} is no picture, sound or video.", "{name} — не картинка, не звук и не видео.", "{name} 不是图片、声音或视频。"],
  storageOff: ["This browser keeps nothing; the conversation ends with the tab.", "Браузер не хранит данные; разговор исчезнет с вкладкой.", "浏览器未启用存储，关闭标签页后对话将消失。"],
  firstText: ["first text", "первый текст", "首个文字"],
  firstSound: ["first sound", "первый звук", "首个声音"],
  underruns: ["gaps in the sound: {count}", "обрывов звука: {count}", "声音中断 {count} 次"],
  laneYou: ["you", "вы", "你"],
  laneText: ["text", "текст", "文字"],
  laneSound: ["sound arrives", "звук приходит", "声音到达"],
  lanePlay: ["sound plays", "звук звучит", "声音播放"],
  sight: ["What the model sees, and when", "Что и когда видит модель", "模型看到的内容与时刻"],
  sightTold: [
    "Text tokens: {text}. Sound positions: {heard}. Pictures: {pictures}, of {seen} tokens.",
    "Токенов текста: {text}. Позиций звука: {heard}. Картинок: {pictures}, токенов в них: {seen}.",
    "文字词元：{text}。声音位置：{heard}。图像：{pictures}，共 {seen} 个词元。",
  ],
  sightClock: [
    "positions of time, {second} in a second; the line is the order of reading",
    "позиции времени, {second} в секунде; линия — порядок чтения",
    "时间位置，每秒 {second} 个；连线为读取顺序",
  ],
  laneHeard: ["sound", "звук", "声音"],
  laneSeen: ["pictures", "картинки", "图像"],
  afterQuestion: ["milliseconds after the question ended", "мс после конца вопроса", "提问结束后的毫秒数"],
  voice: ["Voice", "Голос", "声音"],
  voiceSample: ["Hear it", "Послушать", "试听"],
  sampleText: ["Hello, it is good to hear from you.", "Hello, it is good to hear from you.", "Hello, it is good to hear from you."],
  aloud: ["Answer aloud", "Отвечать голосом", "语音回答"],
  answers: ["Answers", "Ответы", "回答"],
  turnTaking: ["Microphone", "Микрофон", "麦克风"],
  modelName: ["Model", "Модель", "模型"],
  latency: ["Latency", "Задержка", "延迟"],
  latencyServer: ["as the server is set", "как задано сервером", "按服务器设置"],
  latencyLow: ["soonest", "быстрее", "最快"],
  latencyBalanced: ["balanced", "поровну", "均衡"],
  latencyQuality: ["best sound", "лучший звук", "最佳音质"],
  latencyNote: ["For typed questions.", "Для вопросов текстом.", "用于文字提问。"],
  memory: ["Remembers", "Помнит", "记忆"],
  memoryAuto: ["as the model was taught", "как обучена модель", "按模型训练方式"],
  memoryAll: ["the whole conversation", "весь разговор", "整个对话"],
  memoryOne: ["the last question only", "только последний вопрос", "仅最后一个问题"],
  instructions: ["Instructions", "Указания модели", "指令"],
  sampling: ["Sampling of typed questions", "Выбор слов для вопросов текстом", "文字提问的采样"],
  temperature: ["Temperature", "Температура", "温度"],
  topP: ["Top p", "Top p", "Top p"],
  topK: ["Top k", "Top k", "Top k"],
  maxTokens: ["Most tokens", "Не больше токенов", "最大词元数"],
  seed: ["Seed", "Зерно", "随机种子"],
  modelDefault: ["model’s own", "как у модели", "模型默认"],
  talking: ["Talking", "Разговор", "语音"],
  handsFree: ["Hands-free", "Без рук", "免提"],
  pushToTalk: ["Push to talk", "По кнопке", "按键说话"],
  transport: ["Connection", "Соединение", "连接方式"],
  transportNote: [
    "Over WebRTC the server says how much was heard.",
    "По WebRTC сервер сообщает, сколько прозвучало.",
    "使用 WebRTC 时由服务器判断播放了多少。",
  ],
  noCall: [
    "No call over WebRTC; the WebSocket is used.",
    "Звонок по WebRTC не состоялся; используется WebSocket.",
    "无法使用 WebRTC 通话，改用 WebSocket。",
  ],
  tooLargeToSend: [
    "This is too large for a call; choose WebSocket in the settings.",
    "Слишком много для звонка; выберите WebSocket в настройках.",
    "内容过大，无法通过通话发送；请在设置中选择 WebSocket。",
  ],
  threshold: ["How loud speech must be", "Порог громкости речи", "语音阈值"],
  silence: ["Silence that ends a turn, ms", "Тишина в конце реплики, мс", "结束静音（毫秒）"],
  padding: ["Sound kept before speech, ms", "Звук до начала речи, мс", "语音前保留（毫秒）"],
  devices: ["Devices", "Устройства", "设备"],
  microphone: ["Microphone", "Микрофон", "麦克风"],
  speaker: ["Loudspeaker", "Динамик", "扬声器"],
  browserChoice: ["Browser’s choice", "Выбор браузера", "浏览器默认"],
  look: ["Look", "Вид", "外观"],
  language: ["Language", "Язык", "语言"],
  themeWord: ["Colours", "Цвета", "配色"],
  themeAuto: ["as the system", "как в системе", "跟随系统"],
  themeLight: ["light", "светлые", "浅色"],
  themeDark: ["dark", "тёмные", "深色"],
  link: ["Copy a link with these settings", "Скопировать ссылку с этими настройками", "复制含这些设置的链接"],
  reset: ["Reset all", "Сбросить всё", "全部重置"],
  preview: ["What the model is shown", "Что видит модель", "模型看到的画面"],
  waveform: ["Sound levels", "Уровни звука", "音量"],
} satisfies Record<string, readonly [string, string, string]>;

export type Word = keyof typeof TABLE;
const COLUMNS: readonly Language[] = ["en", "ru", "zh"];

export const chosen = signal<Language | "">("");

export const language = computed<Language>(() => {
  if (chosen.value) return chosen.value;
  const wanted = navigator.languages.map((name) => name.slice(0, 2)) as Language[];
  return wanted.find((name) => COLUMNS.includes(name)) ?? "en";
});

/** A word in the language that is chosen. */
export function t(word: Word, fill: Record<string, string | number> = {}): string {
  const text = TABLE[word][COLUMNS.indexOf(language.value)]!;
  return text.replace(/\{(\w+)\}/g, (_, name: string) => String(fill[name] ?? ""));
}

export function bytes(count: number): string {
  const units = ["byte", "kilobyte", "megabyte"];
  const place = count < 1000 ? 0 : count < 1_000_000 ? 1 : 2;
  const style = { style: "unit", unit: units[place]!, maximumFractionDigits: place === 2 ? 1 : 0 } as const;
  return new Intl.NumberFormat(language.value, style).format(count / 1000 ** place);
}

export function number(value: number): string {
  return new Intl.NumberFormat(language.value).format(value);
}

export const TABLE_FOR_TESTS: Record<string, readonly string[]> = TABLE;
