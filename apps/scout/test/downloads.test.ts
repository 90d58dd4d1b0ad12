import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, test } from 'vitest'
import { download } from '../src/downloads.ts'

test.each([
  ['0', 1_000],
  ['-5', 1_000],
  ['7', 7_000],
  ['Wed, 01 Jan 2020 00:00:30 GMT', 1_000],
  ['99999999999', 3_600_000],
  ['soon', 20_000],
])('a server that says Retry-After: %s is asked again after %i ms', async (retryAfter, delayMs) => {
  const server = createServer((_, response) => response.writeHead(429, { 'retry-after': retryAfter }).end())
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  try {
    const url = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`)
    await expect(download(url, new AbortController().signal)).rejects.toMatchObject({
      name: 'RetryAfter',
      delayMs,
    })
  } finally {
    server.closeAllConnections()
    server.close()
  }
})

test('a server that redirects without end is told as that', async () => {
  const server = createServer((_, response) => response.writeHead(302, { location: '/again' }).end())
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  try {
    const host = `127.0.0.1:${(server.address() as AddressInfo).port}`
    await expect(download(new URL(`http://${host}/`), new AbortController().signal)).rejects.toThrow(
      `${host} cannot be reached (redirect count exceeded).`,
    )
  } finally {
    server.closeAllConnections()
    server.close()
  }
})
