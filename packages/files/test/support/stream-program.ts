import pg from 'pg'
import { createEngine } from 'triphase'
import { z } from 'zod'
import { defineFileSweep, exportFile, loadFile } from '../../src/index.ts'

/** Loads and exports a file, and says how long that took and how much memory. */
const [url = '', schema = '', table = '', input = '', output = ''] = process.argv.slice(2)
const pool = new pg.Pool({ connectionString: url, max: 1 })
const engine = createEngine({ url, schema })
const sweep = defineFileSweep({
  name: 'stream',
  table,
  line: z.object({ id: z.string(), url: z.url(), text: z.string() }),
  each: async () => null,
})
let peakBytes = 0
const look = () => {
  peakBytes = Math.max(peakBytes, process.memoryUsage().rss)
}
const began = performance.now()
const { lines } = await loadFile({ engine, pool }, sweep, input, { onProgress: look })
const loaded = performance.now()
await exportFile({ pool }, sweep, output, { onProgress: look })
const ended = performance.now()
console.log(JSON.stringify({ lines, loadMs: loaded - began, exportMs: ended - loaded, peakBytes }))
await engine.stop()
await pool.end()
