import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startEmbeddedPostgres } from '@triphase/embedded'

/** One real server for all test files; each file takes a schema of its own from it. TRIPHASE_TEST_URL set: that server. */
export default async function setup(): Promise<() => Promise<void>> {
  if (process.env.TRIPHASE_TEST_URL) return async () => {}
  const directory = await mkdtemp(join(tmpdir(), 'triphase-test-'))
  const server = await startEmbeddedPostgres({
    directory,
    settings: { max_connections: '300', fsync: 'off' },
  })
  process.env.TRIPHASE_TEST_URL = server.url
  return async () => {
    await server.stop()
    await rm(directory, { recursive: true, force: true })
  }
}
