import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { runSubject } from '../support/subject.ts'
import { answerTo } from './analysis.ts'

interface ApiOrder {
  answersAfterMs: number
}

/** An API that takes its time, and remembers how often each thing was asked: `POST /N`. */
await runSubject<ApiOrder>(async ({ answersAfterMs }, parent) => {
  const calls = new Map<number, number>()
  const server = createServer((request, response) => {
    const n = Number(request.url?.slice(1))
    calls.set(n, (calls.get(n) ?? 0) + 1)
    request.resume()
    setTimeout(() => {
      response.setHeader('content-type', 'application/json').end(JSON.stringify(answerTo(n)))
    }, answersAfterMs)
  })
  server.keepAliveTimeout = 60_000
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', 1_024, resolve))
  parent.tell('listening', (server.address() as AddressInfo).port)
  await parent.heard('end')
  parent.tell('calls', [...calls.values()])
  server.closeAllConnections()
  server.close()
})
