import { describe, expect, test } from 'vitest'
import type { Behaviour, Rule } from '../support/model-server.ts'
import { type Scene, setScene } from '../support/scene.ts'

const garbage: Behaviour = { kind: 'answer', text: 'A cat, I think.' }

/** Makes the server behave so often so towards an image, or always. */
async function towards(it: Scene, name: string, behaviour: Behaviour, times?: number): Promise<Rule> {
  const imageHash = await it.sentHash(name)
  return { behaviour, imageHash, ...(times === undefined ? {} : { times }) }
}

async function callsOf({ model, sentHash }: Scene, name: string): Promise<number> {
  const hash = await sentHash(name)
  return (await model.calls()).calls.filter(({ imageHash }) => imageHash === hash).length
}

async function attemptsOf(
  { database }: Scene,
  name: string,
): Promise<{ outcome: string; code: string | null }[]> {
  const { rows } = await database.pool.query(
    `SELECT a.outcome, a.error->>'code' AS code FROM triphase.job_attempt a
     JOIN scout.capture c ON c.job_id = a.job_id WHERE c.file_name = $1 ORDER BY a.finished_at, a.claim_no`,
    [name],
  )
  return rows
}

describe.concurrent('a model server', () => {
  test('that fails in passing is asked again until it answers', async ({ onTestFinished }) => {
    const it = await setScene(8, onTestFinished)
    const retryIn = (seconds: string): Behaviour => ({
      kind: 'status',
      status: 429,
      headers: { 'retry-after': seconds },
    })
    await it.model.behave(
      await towards(it, '00.jpg', { kind: 'status', status: 500 }, 2),
      await towards(it, '01.png', garbage, 3),
      await towards(it, '02.webp', { kind: 'body', body: '' }, 1),
      await towards(it, '03.jpg', { kind: 'cut', when: 'before headers' }, 1),
      await towards(it, '04.png', { kind: 'cut', when: 'in the body' }, 1),
      await towards(it, '05.webp', { kind: 'hold' }, 1),
      await towards(it, '06.jpg', retryIn('1'), 5),
      await towards(it, '07.png', {
        kind: 'answer',
        observations: [{ label: 'c\0t\ud83d', confidence: 0.5, text: 'a\0', box: null }],
      }),
    )
    const { code, output, errors } = await it.analyze({ SCOUT_CALL_TIMEOUT: '1500ms' }).ended
    expect({ code, errors }).toEqual({ code: 0, errors: '' })
    const calls = await Promise.all(
      (await it.database.analyses()).map(({ file_name }) => callsOf(it, file_name)),
    )
    expect(calls).toEqual([3, 4, 2, 2, 2, 2, 6, 1])
    expect(await attemptsOf(it, '01.png')).toEqual([
      { outcome: 'retried', code: 'ANSWER_NOT_JSON' },
      { outcome: 'retried', code: 'ANSWER_NOT_JSON' },
      { outcome: 'retried', code: 'ANSWER_NOT_JSON' },
      { outcome: 'completed', code: null },
    ])
    expect((await attemptsOf(it, '02.webp'))[0]).toEqual({ outcome: 'retried', code: 'ANSWER_EMPTY' })
    expect((await attemptsOf(it, '05.webp'))[0]).toEqual({ outcome: 'retried', code: 'TIMEOUT' })
    expect(await attemptsOf(it, '06.jpg')).toHaveLength(6)
    const { rows } = await it.database.pool.query(
      `SELECT attempt FROM triphase.job_history h JOIN scout.capture c ON c.job_id = h.id WHERE c.file_name = '06.jpg'`,
    )
    expect(rows).toEqual([{ attempt: 1 }])
    const odd = (await it.database.analyses()).find(({ file_name }) => file_name === '07.png')
    expect(odd?.observations).toEqual([{ label: 'c\ufffdt\ufffd', text: 'a\ufffd', confidence: 0.5 }])
    for (const line of [
      /^The model's server answered 429: too many requests for now\. Asking again in 1 s\.$/m,
      /^The model's server answered 500: told to answer 500\. Trying again in \d s\.$/m,
      /^compatible:test answered text that is not JSON\. Trying again in \d s\.$/m,
      /^There was no answer within 1\.5 s, which SCOUT_CALL_TIMEOUT allows\. Trying again in \d s\.$/m,
    ])
      expect(output).toMatch(line)
  })

  test('that never gives a usable answer makes those images fail, by name, and the next run asks again', async ({
    onTestFinished,
  }) => {
    const it = await setScene(5, onTestFinished)
    await it.model.behave(
      await towards(it, '00.jpg', garbage),
      await towards(it, '01.png', { kind: 'status', status: 400 }),
      await towards(it, '02.webp', { kind: 'answer', text: 'No.', finishReason: 'content_filter' }),
      await towards(it, '03.jpg', { kind: 'hold' }),
    )
    const { code, output, errors } = await it.analyze({ SCOUT_CALL_TIMEOUT: '500ms' }).ended
    expect({ code, errors }).toEqual({ code: 1, errors: '' })
    expect(
      await Promise.all(['00.jpg', '01.png', '02.webp', '03.jpg', '04.png'].map((name) => callsOf(it, name))),
    ).toEqual([4, 1, 1, 4, 1])
    expect(output).toContain('\n5 images: 1 analysed in ')
    expect(output).toContain('\nfailed: 00.jpg: compatible:test answered text that is not JSON.\n')
    expect(output).toContain("\nfailed: 01.png: The model's server answered 400: told to answer 400")
    expect(output).toContain(
      '\nfailed: 02.webp: compatible:test refused to describe the image, by its content policy.',
    )
    expect(output).toContain(
      '\nfailed: 03.jpg: There was no answer within 0.5 s, which SCOUT_CALL_TIMEOUT allows.',
    )
    expect((await it.database.analyses()).map(({ error_code }) => error_code)).toEqual([
      'ANSWER_NOT_JSON',
      'MODEL_REQUEST_REFUSED',
      'ANSWER_REFUSED',
      'TIMEOUT',
      null,
    ])
    await it.model.behave()
    expect((await it.analyze().ended).code).toBe(0)
    expect((await it.model.calls()).calls).toHaveLength(15)
  })

  test('that cannot be reached, or refuses the key, is named', async ({ onTestFinished }) => {
    const it = await setScene(1, onTestFinished)
    const key = 'sk-test-hunter2'
    await it.model.behave({
      behaviour: { kind: 'status', status: 401, body: `{"error":{"message":"Incorrect key ${key}"}}` },
    })
    const refused = await it.analyze({ SCOUT_MODEL: 'openai:gpt', SCOUT_MODEL_KEY: key }).ended
    expect(refused.code).toBe(1)
    expect(refused.output).toContain(
      "\nfailed: 00.jpg: The model's server answered 401: the key is not accepted. Check SCOUT_MODEL_KEY",
    )
    const away = await it.analyze({ SCOUT_MODEL_URL: 'http://127.0.0.1:1/v1' }).ended
    expect(away.code).toBe(1)
    expect(away.output).toMatch(/\nfailed: 00\.jpg: The model's server cannot be reached: /)
    expect(refused.output + refused.errors + away.output + away.errors).not.toContain('hunter2')
    const { rows } = await it.database.pool.query(
      `SELECT coalesce(string_agg(j::text, ''), '') AS kept FROM triphase.job_attempt j`,
    )
    expect(rows[0].kept).not.toContain('hunter2')
  })
})
