// A PgBouncer that is there and lets nobody in.
import { execFile } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { promisify } from 'node:util'
import pg from 'pg'
import { describe, expect, test } from 'vitest'
import { sceneOf } from '../liveness/scene.ts'
import { testDatabaseUrl } from '../support/database-url.ts'
import { NO_PGBOUNCER, startPgBouncer } from '../support/pgbouncer.ts'
import { findProgram, ServerProgram } from '../support/server-program.ts'

const OPENSSL = findProgram('openssl')

describe.skipIf(NO_PGBOUNCER)('PgBouncer', () => {
  test('without room for another client is named, with the remedy', async (context) => {
    const scene = await sceneOf(context)
    const pgbouncer = await startPgBouncer(testDatabaseUrl(), { settings: { max_client_conn: 1 } })
    context.onTestFinished(() => pgbouncer.dispose())
    const url = pgbouncer.url(testDatabaseUrl())
    const only = new pg.Client(url)
    await only.connect()
    await expect(scene.engine({ url }).start()).rejects.toMatchObject({
      code: 'CONNECTION_FAILED',
      message: expect.stringMatching(/no more connections allowed.*max_client_conn of PgBouncer/),
    })
    await only.end()
    const engine = scene.engine({ url })
    expect(await engine.counts()).toEqual([])
    await engine.stop()
  })

  test('that does not know the user, or another password, is named, with the remedy', async (context) => {
    const scene = await sceneOf(context)
    const pgbouncer = await startPgBouncer(testDatabaseUrl())
    context.onTestFinished(() => pgbouncer.dispose())
    for (const [name, value] of [
      ['username', 'nobody_knows'],
      ['password', 'wrong'],
    ] as const) {
      const url = new URL(pgbouncer.url(testDatabaseUrl()))
      url[name] = value
      await expect(scene.engine({ url: url.href }).start()).rejects.toMatchObject({
        code: 'LOGIN_REFUSED',
        message: expect.stringMatching(/Check user, password and database name in the URL/),
      })
    }
  })

  test.skipIf(!OPENSSL)(
    'that wants TLS, or has a certificate that nobody vouches for, is named, with the remedy',
    async (context) => {
      const scene = await sceneOf(context)
      const folder = await ServerProgram.folder('certificate')
      context.onTestFinished(() => rm(folder, { recursive: true }))
      const [key, certificate] = [`${folder}/key.pem`, `${folder}/certificate.pem`]
      const name = ['-subj', '/CN=pgbouncer', '-addext', 'subjectAltName=IP:127.0.0.1']
      const subject = [...name, '-days', '2', '-nodes', '-newkey', 'rsa:2048']
      await promisify(execFile)(OPENSSL!, ['req', '-x509', ...subject, '-keyout', key, '-out', certificate])
      await ServerProgram.give(key)
      const tls = {
        client_tls_sslmode: 'require',
        client_tls_key_file: key,
        client_tls_cert_file: certificate,
      }
      const pgbouncer = await startPgBouncer(testDatabaseUrl(), { settings: tls })
      context.onTestFinished(() => pgbouncer.dispose())
      const [plain, encrypted] = [1, 2].map(() => new URL(pgbouncer.url(testDatabaseUrl()))) as [URL, URL]
      encrypted.searchParams.set('sslmode', 'verify-full')
      for (const [url, words] of [
        [plain, /SSL required/],
        [encrypted, /self-signed certificate/],
      ] as const) {
        const refused = await scene
          .engine({ url: url.href })
          .start()
          .catch((error: unknown) => error)
        expect(refused).toMatchObject({ code: 'CONNECTION_FAILED', message: expect.stringMatching(words) })
        expect(String(refused)).toMatch(/see sslmode and sslrootcert in the URL/)
      }
      encrypted.searchParams.set('sslrootcert', certificate)
      const engine = scene.engine({ url: encrypted.href })
      expect(await engine.counts()).toEqual([])
      await engine.stop()
    },
  )
})
