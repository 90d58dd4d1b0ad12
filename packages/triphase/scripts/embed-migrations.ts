/** Writes src/store/migrations.gen.ts from migrations/*.sql; with --check it only compares. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'

const folder = new URL('../migrations/', import.meta.url)
const target = new URL('../src/store/migrations.gen.ts', import.meta.url)

const migrations = readdirSync(folder)
  .filter((name) => /^\d{4}_\w+\.sql$/.test(name))
  .sort()
  .map((name) => {
    const sql = readFileSync(new URL(name, folder), 'utf8')
    const minCompatible = Number(/^-- min_compatible: (\d+)$/m.exec(sql)?.[1] ?? 1)
    return { version: Number(name.slice(0, 4)), name: name.slice(5, -4), minCompatible, sql }
  })

const text = [
  '// Generated from migrations/*.sql by scripts/embed-migrations.ts. Do not edit.',
  'export interface Migration {\n  version: number\n  name: string\n  minCompatible: number\n  sql: string\n}',
  `export const MIGRATIONS: readonly Migration[] = ${JSON.stringify(migrations, null, 2)}\n`,
].join('\n\n')

if (!process.argv.includes('--check')) writeFileSync(target, text)
else if (readFileSync(target, 'utf8') !== text) {
  console.error('src/store/migrations.gen.ts is not what migrations/*.sql say: run npm run embed-migrations')
  process.exitCode = 1
}
