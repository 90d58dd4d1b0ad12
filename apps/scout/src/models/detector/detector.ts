import { Worker } from 'node:worker_threads'
import type { Pixels } from '../../images.ts'
import type { Detection } from './inference.ts'
import type { Question, Reply } from './thread.ts'

/** `DETECTOR_FAILED`: the local detector could not be loaded or has stopped. The next image starts it again. */
export class DetectorError extends Error {
  readonly code = 'DETECTOR_FAILED'

  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'DetectorError'
  }
}

interface Waiting extends Question {
  readonly signal: AbortSignal | undefined
  readonly onAbort: () => void
  readonly resolve: (detections: Detection[]) => void
  readonly reject: (error: unknown) => void
}

/**
 * Finds things in images, one image after the other, in a thread of its own. Measured on the sample photos: in the main
 * thread each image stopped the event loop, which heartbeats share, for as long as it took (60 to 720 ms); from a thread
 * it was never late by more than 17 ms. A second thread would compete for the cores with the decoding of images.
 *
 * The thread starts with the first image and does not keep the process alive.
 */
export class Detector {
  #thread: Worker | null = null
  #running: Waiting | null = null
  readonly #queue: Waiting[] = []

  /**
   * Things in the image, most confident first, only with the given labels unless they are null. The pixels are moved
   * to the other thread and can no longer be read here.
   *
   * @throws {DetectorError}, or the signal's reason when it aborts.
   */
  detect(pixels: Pixels, labels: readonly string[] | null, signal?: AbortSignal): Promise<Detection[]> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason)
      const waiting: Waiting = {
        pixels,
        labels,
        signal,
        onAbort: () => this.#abort(waiting),
        resolve,
        reject,
      }
      signal?.addEventListener('abort', waiting.onAbort, { once: true })
      this.#queue.push(waiting)
      this.#next()
    })
  }

  /** Ends the thread. Images that wait or are being looked at are refused. */
  async close(): Promise<void> {
    const error = new DetectorError('The local detector was closed.')
    for (const waiting of this.#queue.splice(0)) this.#settle(waiting, () => waiting.reject(error))
    await this.#endThread(error)
  }

  #next(): void {
    if (this.#running !== null) return
    const waiting = this.#queue.shift()
    if (waiting === undefined) return
    this.#running = waiting
    this.#thread ??= this.#startThread()
    this.#thread.ref()
    const { pixels, labels } = waiting
    this.#thread.postMessage({ pixels, labels } satisfies Question, [pixels.data.buffer])
  }

  #startThread(): Worker {
    const thread = new Worker(new URL('./thread.ts', import.meta.url), {
      name: 'scout-detector',
      // Flags of the main thread, such as those for a program given by --eval, make a thread fail.
      execArgv: [],
    })
    thread.on('message', (reply: Reply) => {
      // The last word of a thread that was ended in mid-computation is not about the image that runs now.
      if (this.#thread === thread) this.#finish((running) => running.resolve([...reply]))
    })
    thread.on('error', (cause) => {
      const remedy = 'If it stays, run npm ci: the weights or the WebAssembly file may be missing.'
      const message = cause instanceof Error ? cause.message : String(cause)
      this.#lost(thread, new DetectorError(`The local detector stopped: ${message} ${remedy}`, { cause }))
    })
    thread.on('exit', (code) =>
      this.#lost(thread, new DetectorError(`The local detector's thread ended with code ${code}.`)),
    )
    return thread
  }

  #lost(thread: Worker, error: DetectorError): void {
    if (this.#thread !== thread) return
    this.#thread = null
    this.#finish((running) => running.reject(error))
  }

  #finish(how: (running: Waiting) => void): void {
    const running = this.#running
    this.#running = null
    this.#thread?.unref()
    if (running !== null) this.#settle(running, how)
    this.#next()
  }

  #settle(waiting: Waiting, how: (waiting: Waiting) => void): void {
    waiting.signal?.removeEventListener('abort', waiting.onAbort)
    how(waiting)
  }

  /** A computation in WebAssembly ends only with its thread; the next image starts one, which costs 0.2 s. */
  #abort(waiting: Waiting): void {
    const place = this.#queue.indexOf(waiting)
    if (place >= 0) this.#queue.splice(place, 1)
    if (this.#running === waiting) void this.#endThread(waiting.signal?.reason)
    else waiting.reject(waiting.signal?.reason)
  }

  async #endThread(reason: unknown): Promise<void> {
    const thread = this.#thread
    this.#thread = null
    this.#finish((running) => running.reject(reason))
    await thread?.terminate()
  }
}
