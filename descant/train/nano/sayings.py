"""More ways to say the same: tables only, beside those of `phrases`; `wording` gives them sense.

Everything here can be spoken: lower case, no digits, no punctuation but the apostrophe. Written with this project, free
to use (CC0).
"""

from __future__ import annotations

# intent -> more ways to ask, beside those of phrases.CHAT
MORE_CHAT: dict[str, tuple[str, ...]] = {
    "hello": ("hi", "hey", "hey there", "hello there", "hiya", "hello nano", "hi nano", "howdy", "yo"),
    "morning": ("good morning nano", "morning", "a good morning", "good morning my friend", "top of the morning",
                "hello and good morning", "wishing you a good morning"),
    "evening": ("evening", "good evening nano", "a good evening", "hello and good evening", "good evening my friend",
                "wishing you a good evening", "a lovely evening to you"),
    "night": ("good night nano", "sleep well", "night night", "i am off to bed", "i will go to sleep now",
              "have a good night", "sweet dreams", "i need some sleep"),
    "bye": ("bye", "see you", "see you soon", "goodbye nano", "so long", "farewell", "talk to you later", "that is all",
            "i am leaving now", "until next time"),
    "how": ("how are you doing", "how are you today", "how do you do", "are you okay", "how goes it",
            "how have you been", "hi how are you doing today", "what is up"),
    "name": ("what's your name", "tell me your name", "what should i call you", "your name please",
             "may i know your name", "what do people call you", "say your name", "who am i talking to"),
    "kind": ("what kind of thing are you", "are you real", "are you a robot", "are you a computer", "are you alive",
             "are you an assistant", "what sort of model are you", "tell me what you are"),
    "help": ("help", "i need help", "what are you able to do", "what are you good at", "what can we talk about",
             "how do i use you", "what should i ask", "what do you understand", "show me what you can do"),
    "thanks": ("thanks", "thank you very much", "thx", "thank you so much", "thanks nano", "cheers", "great thanks",
               "i thank you", "thanks for your help"),
    "sorry": ("sorry", "i'm sorry", "my apologies", "excuse me", "i did not mean that", "pardon me", "oh sorry",
              "i apologise"),
    "praise": ("great", "very good", "nice", "you are smart", "that was right", "correct", "excellent", "bravo",
               "good answer", "i love you"),
    "blame": ("wrong", "no that is wrong", "that's wrong", "that is not right", "you made a mistake", "incorrect",
              "bad answer", "that was wrong", "not correct"),
    "maker": ("who created you", "who is your maker", "who wrote you", "who programmed you", "where are you from",
              "which project made you", "who invented you", "who do you belong to"),
    "age": ("how old", "what's your age", "how long have you existed", "when were you born", "are you young",
            "tell me your age", "what is your date of birth", "how many years old are you"),
    "size": ("how large are you", "are you small", "what's your size", "are you a small model",
             "how many weights do you have", "are you tiny", "tell me your size", "how much do you weigh"),
    "home": ("where do you stay", "where can i find you", "what is your address", "where do you live now",
             "in which place are you", "tell me where you live", "where is your house", "which country are you in"),
    "voice": ("what's your voice", "which voice is this", "whose voice do i hear", "what is the name of your voice",
              "how is your voice called", "whose voice are you using", "tell me about your voice"),
    "hear": ("do you hear", "are you hearing me", "can you hear this", "hello can you hear me", "is my microphone on",
             "do you have ears", "testing testing", "can you hear my voice"),
    "see": ("can you see me", "can you see pictures", "do you see", "can you look at a picture", "are you able to see",
            "can you see a video", "do you look at pictures", "can you watch a film"),
    "speak": ("do you speak", "do you talk", "can you say something", "can you speak to me", "can you use your voice",
              "are you able to talk", "will you talk to me", "please speak"),
    "count": ("can you do numbers", "are you good at numbers", "are you able to count", "how high can you count",
              "do you count", "can you work with numbers", "how many numbers do you know"),
    "joke": ("a joke please", "joke", "tell a joke", "can you tell me a joke", "be funny", "i want to hear a joke",
             "do you have a joke for me", "tell me something funny", "another joke"),
    "song": ("sing", "sing something", "can you sing a song", "sing me a song", "let me hear you sing", "please sing",
             "i want a song", "play a song"),
    "happy": ("i'm happy", "i am so happy", "i feel great", "i am doing well", "i am fine", "what a nice day",
              "i am in a good mood", "today is a good day"),
    "sad": ("i'm sad", "i am so sad", "i am unhappy", "i feel terrible", "i am exhausted", "i'm tired",
            "today was hard", "i am not well"),
    "ready": ("ready", "are you ready now", "shall we start", "let us begin", "can we begin", "are you still there",
              "is anybody there", "are you awake"),
    "yes": ("yeah", "yep", "sure", "okay", "yes please", "of course", "that is fine", "alright", "right"),
    "no": ("nope", "no thanks", "not now", "no not really", "i don't want that", "leave it", "nothing", "rather not"),
    "colour": ("what's your favourite colour", "do you have a favourite colour", "which colour do you like best",
               "what colour do you like", "your favourite colour please", "what is the best colour",
               "do you like blue", "name your favourite colour"),
    "food": ("are you thirsty", "what's your favourite food", "do you eat", "what did you eat today",
             "do you want some food", "are you hungry now", "do you need food", "would you like some cake"),
}  # fmt: skip

WAYS_PLUS = ("what is {a} plus {b}", "how much is {a} plus {b}", "{a} plus {b}", "add {a} and {b}",
             "what is {a} and {b}", "the sum of {a} and {b}", "what does {a} plus {b} make", "add {b} to {a}",
        "what do you get if you add {a} and {b}",
        "what's {a} plus {b}", "{a} and {b} together", "calculate {a} plus {b}", "{a} plus {b} equals what",
        "can you add {a} and {b}")  # fmt: skip
WAYS_MINUS = ("what is {a} minus {b}", "how much is {a} minus {b}", "{a} minus {b}", "take {b} from {a}",
         "subtract {b} from {a}",
         "{a} take away {b}", "what is left if you take {b} from {a}", "what does {a} minus {b} make",
         "what's {a} minus {b}", "calculate {a} minus {b}", "{a} minus {b} equals what", "what is {a} less {b}",
         "can you take {b} from {a}")  # fmt: skip
WAYS_OPPOSITE = ("what is the opposite of {w}", "the opposite of {w}", "tell me the opposite of {w}", "opposite of {w}",
            "what's the opposite of {w}", "which word is the opposite of {w}", "what is the contrary of {w}",
            "give me the opposite of {w}", "do you know the opposite of {w}", "{w} what is the opposite",
            "name the opposite of {w}", "i need the opposite of {w}")  # fmt: skip
WAYS_NEXT = ("what number comes after {w}", "what comes after {w}", "the number after {w}", "which number follows {w}",
        "what is the next number after {w}", "what follows {w}", "what is the number after {w}",
        "next number after {w}",
        "count on from {w}", "and after {w}", "tell me the number after {w}",
        "which number is next after {w}")  # fmt: skip
WAYS_BEFORE = ("what number comes before {w}", "what comes before {w}", "the number before {w}",
          "which number is before {w}",
          "what is the number before {w}", "number before {w}", "count back from {w}", "and before {w}",
          "tell me the number before {w}", "which number comes just before {w}", "what goes before {w}")  # fmt: skip
WAYS_NEXT_DAY = ("what day comes after {w}", "what comes after {w}", "the day after {w}", "which day follows {w}",
            "what is the day after {w}", "what day is after {w}", "tell me the day after {w}", "day after {w}",
            "which day comes after {w}", "if today is {w} what is tomorrow", "what follows {w}")  # fmt: skip
WAYS_NEXT_MONTH = ("what month comes after {w}", "what comes after {w}", "the month after {w}",
                   "which month follows {w}",
              "what is the month after {w}", "what month is after {w}", "tell me the month after {w}",
              "month after {w}",
              "which month comes after {w}", "what is the next month after {w}", "what follows {w}")  # fmt: skip
AROUND: tuple[tuple[str, str], ...] = (
    ("", ""), ("please tell me ", ""), ("hey nano ", ""), ("excuse me ", ""), ("okay ", ""), ("so ", ""), ("",
     " please"),
    ("", " nano"), ("now ", ""), ("my friend ", ""), ("um ", ""), ("can you tell me ", ""), ("well ", ""),
    ("i want to know ", ""), ("quick question ", ""), ("", " thank you"),
)  # fmt: skip

# ---- what goes on from the turn before
WAYS_MORE = ("and plus {b}", "plus {b}", "now add {b}", "add {b} to that", "and {b} more", "and if you add {b}",
        "then plus {b}", "what is that plus {b}", "add another {b}", "and then add {b}")  # fmt: skip
WAYS_LESS = ("and minus {b}", "minus {b}", "now take away {b}", "take {b} from that", "and {b} less",
        "and if you take {b} away",
        "then minus {b}", "what is that minus {b}", "subtract {b}", "and then take {b} away")  # fmt: skip
WAYS_AGAIN = ("what did you say", "say that again", "repeat that", "once more", "pardon", "can you repeat that",
         "i did not hear you", "sorry what was that", "please say it again", "come again", "repeat please",
         "what was that", "what was the answer")  # fmt: skip
WAYS_RESUME = ("what were you saying", "go on", "please continue", "you were saying", "carry on", "continue",
               "and then", "finish your sentence", "i interrupted you go on", "sorry go on")  # fmt: skip
WAYS_FIX = ("no i mean {q}", "sorry i meant {q}", "no {q}", "i mean {q}", "wait {q}", "that is not what i asked {q}",
       "let me correct that {q}", "i wanted to ask {q}", "correction {q}", "not that {q}")  # fmt: skip

# ---- about what is shown and heard
WAYS_COLOUR = ("what colour is it", "which colour do you see", "what is the colour", "what colour do you see",
              "which colour is it", "tell me the colour", "name the colour", "what colour is the shape",
              "and the colour", "which colour", "what's the colour", "what colour is that")  # fmt: skip
WAYS_SHAPE = ("what shape is it", "which shape do you see", "what is the shape", "what shape do you see",
             "which shape is it",
             "tell me the shape", "name the shape", "what kind of shape is it", "and the shape", "which shape",
             "what's the shape", "what shape is that")  # fmt: skip
WAYS_COUNT = ("how many shapes are there", "how many do you see", "count the shapes", "how many are there",
             "how many shapes do you see", "count them", "what is the number of shapes", "how many", "tell me how many",
             "can you count the shapes", "how many are in the picture", "and how many")  # fmt: skip
WAYS_PICTURE = ("what do you see", "what is in the picture", "describe the picture", "what is this", "describe it",
               "what does the picture show", "tell me what you see", "what's in the picture", "look at this",
               "can you describe the picture", "what is on the picture")  # fmt: skip
WAYS_WHERE = ("where is it", "where is the shape", "where in the picture is it", "in which part of the picture is it",
             "tell me where it is", "which part of the picture is it in", "where do you see it", "where can you see it",
             "where is the shape in the picture", "and where is it")  # fmt: skip
WAYS_SAME = ("do they have the same colour", "are they the same colour", "is the colour the same", "same colour or not",
            "compare the colours", "are both the same colour", "what colours are they", "which colours are they",
            "do the two pictures have one colour", "what is the colour of each")  # fmt: skip
WAYS_COMPARE = ("which picture has more shapes", "where are more shapes", "which one has more", "which has more shapes",
            "in which picture are more shapes", "compare the numbers", "which picture shows more",
            "does the first or the second have more", "where do you see more", "which of the two has more")  # fmt: skip
WAYS_SOUND = ("what do you hear", "which sound is this", "what is that sound", "what sound is it",
              "what was that sound",
             "name the sound", "what can you hear", "tell me what you hear", "which sound do you hear",
             "what's that sound", "what is this noise", "listen what is it")  # fmt: skip
WAYS_VIDEO = ("which colour was shown when the beep sounded", "what colour was there at the beep",
             "which colour did you see at the beep", "what colour was it when it beeped",
             "which colour was it at the beep",
             "when the beep came what colour was it", "what was the colour during the beep",
             "tell me the colour at the beep",
             "at the beep what colour did you see", "which colour came with the beep")  # fmt: skip
WAYS_CHANGE = ("what changed in the video", "what happened in the video", "what changed", "what happens in the video",
              "tell me what changed", "what is different at the end", "describe what changed",
              "which change did you see", "how did the colour change", "what did you see change")  # fmt: skip
PLACES = (("at the top left", "at the top", "at the top right"), ("on the left", "in the middle", "on the right"),
          ("at the bottom left", "at the bottom", "at the bottom right"))  # fmt: skip
SYSTEMS = ("You are a helpful assistant.", "Be short.", "You are nano.", "Answer in one sentence.",
           "Be kind and brief.",
           "You are a friendly voice.", "Talk like a friend.", "Answer the user's questions.", "Today is Monday.",
           "You are talking to a child.", "Speak clearly.", "Do not use long words.")  # fmt: skip
