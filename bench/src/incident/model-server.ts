import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { runSubject } from '../support/subject.ts'

interface ModelServerOrder {
  /** How long it takes to answer, by the number of the job. */
  callsMs: readonly number[]
}

/** What a model server has been asked for. */
export interface Calls {
  /** Jobs that it was asked about. */
  jobs: number
  /** Of these, those that it was asked about more than once. */
  again: number
  mostAtOnce: number
}

/** A model that takes its time to say what is to be seen: `POST /N`. */
await runSubject<ModelServerOrder>(async ({ callsMs }, parent) => {
  const calls = new Map<number, number>()
  let underWay = 0
  let mostAtOnce = 0
  const server = createServer((request, response) => {
    const n = Number(request.url?.slice(1))
    calls.set(n, (calls.get(n) ?? 0) + 1)
    mostAtOnce = Math.max(mostAtOnce, ++underWay)
    request.resume()
    setTimeout(() => {
      underWay--
      response
        .setHeader('content-type', 'application/json')
        .end(JSON.stringify({ labels: ['cat', 'window'] }))
    }, callsMs[n])
  })
  server.keepAliveTimeout = 60_000
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', 1_024, resolve))
  parent.tell('listening', (server.address() as AddressInfo).port)
  await parent.heard('end')
  const again = [...calls.values()].filter((count) => count > 1).length
  parent.tell('calls', { jobs: calls.size, again, mostAtOnce } satisfies Calls)
  server.closeAllConnections()
  server.close()
})
