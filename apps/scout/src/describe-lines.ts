import { createHash } from 'node:crypto'
import path from 'node:path'
import { defineFileSweep, type FileSweep } from '@triphase/files'
import { Permanent } from 'triphase'
import { z } from 'zod'
import { download, downloadable } from './downloads.ts'
import { readImageFile } from './image-folder.ts'
import { type Observation, parseAnswer } from './models/answer.ts'
import { callModel } from './models/call.ts'
import type { CallParts } from './run-sweep.ts'

/** What a column of a list holds. */
export const KINDS = ['url', 'path', 'text'] as const

/** A list, and what is asked of each of its lines. */
export interface ListQuestion {
  /** Absolute. */
  readonly file: string
  readonly kind: (typeof KINDS)[number]
  readonly column: string
  readonly prompt: string
}

type Line = Record<string, string>

/**
 * Has the model look at each image or read each text of a list. A list is known by where it is and by what is asked of it,
 * so the same command goes on with it and another one begins anew.
 */
export function describeLines(
  question: ListQuestion,
  { settings, model, callFailed }: CallParts,
): FileSweep<Line> {
  const { file, kind, column, prompt } = question
  const name = `file-${createHash('sha256')
    .update(JSON.stringify([file, kind, column, prompt]))
    .digest('hex')
    .slice(0, 12)}`
  return defineFileSweep<Line, Line>({
    name,
    table: `scout.${name.replace('-', '_')}`,
    queue: name,
    line: z.object({ [column]: kind === 'url' ? urlText : someText }),
    resultColumns: ['labels', 'description', 'observations', 'model'],
    concurrency: settings.concurrency,
    timeout: settings.callTimeoutMs,
    // In a list what cannot work stands together: the pictures of a shop that has closed.
    breaker: { inRow: 50, share: 0.9 },
    async each(record, { signal, idempotencyKey }) {
      try {
        const content = await contentOf(question, record[column] as string, signal)
        const answer = await callModel(model, { ...content, profile: { prompt }, signal, idempotencyKey })
        return resultOf(parseAnswer(answer), answer.model)
      } catch (error) {
        throw callFailed(error, signal)
      }
    },
  })
}

const someText = z.string({ error: 'must be a text' }).refine((text) => text.trim() !== '', 'is empty')
const urlText = someText.refine(
  (text) => text.trim() === '' || downloadable(text.trim()) !== null,
  'must be a URL that begins with http:// or https://, without a user name or password',
)

async function contentOf(
  { file, kind }: ListQuestion,
  value: string,
  signal: AbortSignal,
): Promise<{ text: string } | { image: Uint8Array }> {
  if (kind === 'text') return { text: value }
  if (kind === 'url') return { image: await download(downloadable(value.trim()) as URL, signal) }
  // As the list says it, from where the list is.
  const content = await readImageFile(path.resolve(path.dirname(file), value.trim()))
  if (!content.ok) {
    const { code, path: place, message } = content.problem
    throw new Permanent(code === 'FILE_MISSING' ? `${place} does not exist.` : message)
  }
  return { image: content.bytes }
}

function resultOf(observations: readonly Observation[], model: string): object {
  const labels = [...new Set(observations.map(({ label }) => label))].join(', ')
  const description = observations.flatMap(({ text }) => text ?? []).join(' ')
  return { labels, description, observations, model }
}
