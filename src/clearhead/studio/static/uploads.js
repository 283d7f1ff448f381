// @ts-check
/** Files as they are sent: a picture made smaller, a sound as WAV with one channel and 16,000 samples a second. */

const RATE = 16_000;
const LONGEST = 30; // seconds
const PICTURE_SIDE = 512; // pixels an uploaded picture is made smaller to: models look at fewer
const MOST_PICTURE = 900_000; // bytes of a picture that is sent as it is

/** A large picture made smaller. Fails if the browser cannot read it. @param {Blob} file @returns {Promise<Blob>} */
export async function asSmallPicture(file) {
  if (file.size <= MOST_PICTURE) return file;
  const drawn = await createImageBitmap(file);
  const part = Math.min(1, PICTURE_SIDE / Math.min(drawn.width, drawn.height));
  const canvas = Object.assign(document.createElement("canvas"), { width: Math.round(drawn.width * part), height: Math.round(drawn.height * part) });
  /** @type {any} */ (canvas.getContext("2d")).drawImage(drawn, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(/** @type {any} */ (resolve), "image/jpeg", 0.92));
}

/** The sound as a WAV file, or null if it is too long. Fails if the browser cannot decode it. @param {Blob} file */
export async function asWav(file) {
  const decoded = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await file.arrayBuffer()); // at this rate
  if (decoded.duration > LONGEST) return null;
  const channels = Array.from({ length: decoded.numberOfChannels }, (_, i) => decoded.getChannelData(i));
  const view = new DataView(new ArrayBuffer(44 + 2 * decoded.length));
  const write = (at, text) => [...text].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  write(0, "RIFF");
  view.setUint32(4, 36 + 2 * decoded.length, true);
  write(8, "WAVEfmt ");
  view.setUint32(16, 16, true); // bytes of the format
  view.setUint16(20, 1, true); // plain samples
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, RATE, true);
  view.setUint32(28, 2 * RATE, true); // bytes a second
  view.setUint16(32, 2, true); // bytes a sample
  view.setUint16(34, 16, true); // bits a sample
  write(36, "data");
  view.setUint32(40, 2 * decoded.length, true);
  for (let i = 0; i < decoded.length; i++) {
    const mean = channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length;
    view.setInt16(44 + 2 * i, Math.round(32767 * Math.min(Math.max(mean, -1), 1)), true);
  }
  return new Blob([view], { type: "audio/wav" });
}
