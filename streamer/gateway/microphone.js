// Runs in the browser's audio thread: gathers a microphone's samples into chunks of 100 ms, 16 bits, big-endian.

const CHUNK_S = 0.1;

class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.length = Math.round(sampleRate * CHUNK_S);
    this.fresh();
  }

  fresh() {
    this.samples = new DataView(new ArrayBuffer(2 * this.length));
    this.count = 0;
  }

  process(inputs) {
    const mono = inputs[0][0];
    if (!mono) return true;
    for (let i = 0; i < mono.length; i += 1) {
      const clipped = Math.max(-1, Math.min(1, mono[i]));
      this.samples.setInt16(2 * this.count, Math.round(clipped * 32767), false);
      this.count += 1;
      if (this.count === this.length) {
        const end = currentFrame + i + 1; // of the context's frames, at the end of this chunk
        this.port.postMessage({ end, pcm: this.samples.buffer }, [this.samples.buffer]);
        this.fresh();
      }
    }
    return true;
  }
}

registerProcessor("microphone", Microphone);
