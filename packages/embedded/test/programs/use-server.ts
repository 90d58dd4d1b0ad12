// A user of an embedded server as a process of its own: prints what it got as a line of JSON, and obeys words on stdin.
import { createInterface } from 'node:readline'
import { EmbeddedPostgresError, startEmbeddedPostgres } from '@triphase/embedded'

function say(message: Record<string, unknown>): void {
  process.stdout.write(`${JSON.stringify(message)}\n`)
}

try {
  const started = performance.now()
  const server = await startEmbeddedPostgres(JSON.parse(process.argv[2]!))
  say({ url: server.url, port: server.port, milliseconds: Math.round(performance.now() - started) })
  if (process.argv[3] === 'leave at once') await server.stop()
  else if (process.argv[3] !== 'forget at once') {
    const words = createInterface(process.stdin)
    words.on('line', async (word) => {
      if (word !== 'stop') return
      await server.stop()
      say({ stopped: true })
      words.close()
    })
  }
} catch (error) {
  say({ code: error instanceof EmbeddedPostgresError ? error.code : 'not ours', message: String(error) })
  process.exitCode = 1
}
