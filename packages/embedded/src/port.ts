import { readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import type { Account } from './account.ts'
import { ignoreCode } from './errors.ts'
import type { Layout } from './layout.ts'

/**
 * A port of 127.0.0.1 that was free a moment ago: that of the last start when possible, so that an url stays valid from
 * one start to the next.
 */
export async function choosePort(layout: Layout): Promise<number> {
  const remembered = Number(await readFile(layout.port, 'utf8').catch(ignoreCode('ENOENT')))
  const usable = Number.isInteger(remembered) && remembered > 0 && remembered < 65_536
  return (usable ? await probe(remembered) : undefined) ?? (await anyPort())
}

export async function rememberPort(layout: Layout, account: Account, port: number): Promise<void> {
  await writeFile(layout.port, String(port))
  await account.give(layout.port)
}

async function anyPort(): Promise<number> {
  const port = await probe(0)
  if (port === undefined) throw new Error('There is no free port on 127.0.0.1')
  return port
}

async function probe(wanted: number): Promise<number | undefined> {
  const server = createServer()
  return new Promise((resolve) => {
    server.once('error', () => resolve(undefined))
    server.listen({ port: wanted, host: '127.0.0.1', exclusive: true }, () => {
      const address = server.address()
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : undefined))
    })
  })
}
