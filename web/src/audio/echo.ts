/**
 * What the browser's echo canceller left of the model's own voice is no speech: while that voice is played, sound that
 * is much fainter than it is replaced by silence. Who speaks up is heard, and stays heard through the pauses of a word.
 */
const SHARE = 0.1; // of what was played: a canceller leaves less, a person at the microphone is louder
const OPEN_MS = 300;

export class EchoGate {
  private openUntil = -Infinity;

  /** samples of the microphone and their peak; played: the loudest that the loudspeaker had. now: ms. */
  pass(samples: Float32Array, peak: number, played: number, now: number): Float32Array {
    if (played > 0 && peak >= SHARE * played) this.openUntil = now + OPEN_MS;
    return played === 0 || now < this.openUntil ? samples : new Float32Array(samples.length);
  }
}
