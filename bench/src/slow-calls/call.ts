import { setTimeout as delay } from 'node:timers/promises'
import { type Answer, answerTo } from './analysis.ts'

/** What the measured programs are told. */
export interface SlowCallsOrder {
  jobs: number
  url: string
  /** Jobs at a time. */
  concurrency: number
  /** The slow call: to a server, a timer, or none at all. */
  call: 'http' | 'timer' | 'none'
  callMs: number
  api: string
}

export function slowCall({ call, callMs, api }: SlowCallsOrder): (n: number) => Promise<Answer> {
  switch (call) {
    case 'http':
      return async (n) => {
        const response = await fetch(`${api}/${n}`, { method: 'POST' })
        return (await response.json()) as Answer
      }
    case 'timer':
      return (n) => delay(callMs, answerTo(n))
    case 'none':
      return (n) => Promise.resolve(answerTo(n))
  }
}
