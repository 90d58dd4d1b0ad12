import { parentPort } from 'node:worker_threads'
import type { Pixels } from '../../images.ts'
import { type Detection, loadDetector } from './inference.ts'

/** What the detector's thread is asked, one at a time. */
export interface Question {
  readonly pixels: Pixels
  readonly labels: readonly string[] | null
}

/** What it says to each. An error that it does not expect ends the thread instead. */
export type Reply = readonly Detection[]

const port = parentPort
if (port === null) throw new Error('thread.ts runs only as a worker thread')
// Questions that arrive while the weights load wait in the port.
const detect = await loadDetector()
port.on('message', async ({ pixels, labels }: Question) => {
  const reply: Reply = await detect(pixels, labels)
  port.postMessage(reply)
})
