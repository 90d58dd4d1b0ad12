import { type ChildProcess, spawn } from 'node:child_process'
import { createWriteStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { fileURLToPath } from 'node:url'
import { beforeAll, expect, test } from 'vitest'
import { testDatabaseUrl } from '../../triphase/test/support/database-url.ts'
import { eventually } from '../../triphase/test/support/processes.ts'
import { useFiles } from './support/file-bench.ts'

const files = useFiles()
const LINES = 200_000

beforeAll(() => pipeline(Readable.from(content()), createWriteStream(files.path('large.csv'))))

/** Loads and exports the file, in a process of its own with a heap of 32 MB. */
function startStreaming(table: string): { child: ChildProcess; ended: Promise<string> } {
  const program = fileURLToPath(new URL('./support/stream-program.ts', import.meta.url))
  const paths = [files.path('large.csv'), files.path(`${table}.out.csv`)]
  const child = spawn(
    process.execPath,
    [
      '--conditions=triphase-source',
      '--max-old-space-size=32',
      program,
      testDatabaseUrl(),
      'triphase',
      files.table(table),
      ...paths,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  return { child, ended: text(child.stdout) }
}

test('a file of 200,000 lines is loaded and exported by a process with a heap of 32 MB', async () => {
  const { size } = await stat(files.path('large.csv'))
  expect(size).toBeGreaterThan(32 * 2 ** 20)
  expect(JSON.parse(await startStreaming('large').ended)).toMatchObject({ lines: LINES })
  // `,pending,,` on each line, and the header.
  const added = LINES * ',pending,,'.length + ',status,result,error'.length
  expect((await stat(files.path('large.out.csv'))).size).toBe(size + added)
})

test('killed in the middle of its copy it leaves nothing, and the next one loads the file', async () => {
  const { child, ended } = startStreaming('killed')
  const copying = async () => {
    const { rowCount } = await files.pool.query(
      `SELECT FROM pg_stat_activity WHERE query LIKE 'COPY%killed_load_1%' AND pid <> pg_backend_pid()`,
    )
    return rowCount === 1
  }
  // The whole file is checked before, which takes its time on a busy machine.
  await eventually(copying, { interval: 10, timeout: 40_000 })
  child.kill('SIGKILL')
  expect(await ended).toBe('')
  await eventually(async () => !(await copying()))
  expect((await files.tables()).filter((name) => name.startsWith('killed'))).toEqual([])
  expect(JSON.parse(await startStreaming('killed').ended)).toMatchObject({ lines: LINES })
})

function* content(): Generator<string> {
  yield 'id,url,text\n'
  for (let first = 1; first <= LINES; first += 1_000) {
    const rows = Array.from({ length: 1_000 }, (_, index) => first + index)
    yield rows.map((id) => `${id},https://photos.example/${id}.jpg,"${'a text, '.repeat(18)}"\n`).join('')
  }
}
