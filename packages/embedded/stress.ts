import { spawn, execFileSync } from 'node:child_process'
import { createInterface } from 'node:readline'
import { readFileSync } from 'node:fs'
import pg from 'pg'
const directory = '/tmp/emb-stress/d'
const program = new URL('./test/programs/use-server.ts', import.meta.url).pathname
const rand = (n: number) => Math.floor(Math.random() * n)
const sleep = (ms: number) => new Promise((r) => setTimeout(r, ms))
const stats: Record<string, number> = {}
const count = (k: string) => { stats[k] = (stats[k] ?? 0) + 1 }
const end = Date.now() + Number(process.argv[2]) * 1000
let postmasterKilledAt = 0
async function user() {
  while (Date.now() < end) {
    const child = spawn(process.execPath, ['--conditions=triphase-source', program, JSON.stringify({ directory, database: 'x' }), 'stay'], { stdio: ['pipe', 'pipe', 'inherit'] })
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
    const closed = new Promise((r) => child.once('close', r))
    if (rand(4) === 0) { await sleep(rand(700)); child.kill('SIGKILL'); count('killed early'); await closed; continue }
    const startedAt = Date.now()
    const { value } = await lines.next()
    const m = JSON.parse(value ?? '{}')
    if (!m.url) { console.log('START FAILED', value); count('start failed'); await closed; continue }
    count('started')
    const until = Date.now() + rand(1500)
    let bad = 0
    while (Date.now() < until) {
      const c = new pg.Client({ connectionString: m.url }); c.on('error', () => {})
      try { await c.connect(); await c.query('select 1'); count('query ok') } catch (e) { if (postmasterKilledAt < startedAt - 3000) { bad++; console.log('QUERY FAILED', String(e), Date.now() - postmasterKilledAt) } else count('query failed after kill') } finally { await c.end().catch(() => {}) }
      await sleep(rand(100))
    }
    if (rand(3) === 0) { child.kill('SIGKILL'); count('killed') } else { child.stdin.write('stop\n'); const r = await lines.next(); if (!r.value?.includes('stopped')) console.log('STOP', r.value); else count('stopped') }
    await closed
  }
}
async function killer() {
  while (Date.now() < end) {
    await sleep(2000 + rand(4000))
    if (process.argv[3] === 'calm') continue
    try {
      if (rand(2)) { const pid = Number(readFileSync(directory + '/cluster/data/postmaster.pid', 'utf8').split('\n')[0]); postmasterKilledAt = Date.now(); process.kill(pid, 'SIGKILL'); count('postmaster killed') }
      else { process.kill(Number(readFileSync(directory + '/watchdog', 'utf8').split('-')[0]), 'SIGKILL'); count('watchdog killed') }
    } catch { count('nothing to kill') }
  }
}
await Promise.all([user(), user(), user(), user(), killer()])
console.log(stats)
await sleep(8000)
console.log(execFileSync('sh', ['-c', "ps -eo pid,command | grep emb-stress | grep -v 'grep' | grep -v stress.ts || echo none left"], { encoding: 'utf8' }))
