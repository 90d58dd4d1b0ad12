import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { expect, test } from 'vitest'
import { EXIT } from '../src/index.ts'
import { VERBS } from '../src/sweep/verbs.ts'
import { useScene } from './support/scene.ts'

// docs/cli.md says what is.
const page = readFileSync(path.join(import.meta.dirname, '../../../docs/cli.md'), 'utf8')
const scene = useScene('page', { more: 'files' })

/** The commands of the page, in order, without comments and without what a shell does with their output. */
function commandsOfPage(): string[] {
  const blocks = [...page.matchAll(/^```sh\n(.*?)^```/gms)].map(([, block = '']) => block)
  return blocks
    .flatMap((block) => block.split('\n'))
    .filter((line) => line.startsWith('triphase '))
    .map((line) => line.replace(/\s+(#|>).*$/, ''))
}

test('the table of exit codes has all of them', () => {
  const codes = [...page.matchAll(/^\| (\d+) \|/gm)].map(([, code]) => Number(code))
  expect(codes).toEqual(Object.values(EXIT).toSorted((a, b) => a - b))
})

test('the table of verbs has all of them', () => {
  const verbs = [...page.matchAll(/^\| `([a-z-]+)[^\n]*\|/gm)].map(([, verb]) => verb)
  expect(VERBS.map(({ name }) => name).filter((name) => !verbs.includes(name))).toEqual([])
})

test('every command works as it stands there', async () => {
  await scene.fill(12)
  writeFileSync(path.join(scene.folder, 'list.csv'), 'id,text\n1,one\n2,two\n')
  const commands = commandsOfPage()
  expect(commands.length).toBeGreaterThan(12)
  for (const command of commands) {
    const line = command.replace(/^triphase/, '$TRIPHASE').replaceAll('describe-files', 'describe')
    const started = scene.start([], { through: ['bash', '-c', `eval "exec ${line}"`] })
    if (command.startsWith('triphase work')) {
      await started.says(/works/)
      started.signal('SIGTERM')
    }
    const { code, stderr } = await started.ended
    // Nothing is wrong with it, but the page's last run may be over before it is paused.
    expect([EXIT.ok, EXIT.refused], `${command}: ${stderr}`).toContain(code)
  }
})
