import { describe, expect, test } from 'vitest'
import { connectionLines, failureLines, imageTable, type ReportedImage, summaryLine } from '../src/report.ts'
import { widthOf } from '../src/terminal.ts'

function image(name: string, over: Partial<ReportedImage> = {}): ReportedImage {
  return { captureId: name, names: [name], status: 'completed', error: null, observations: [], ...over }
}

const seen = (...labels: [string, number | null][]) => ({
  observations: labels.map(([label, confidence]) => ({ label, confidence, text: null })),
})

describe('the table', () => {
  test('counts labels, and says so where there is nothing or it failed', () => {
    const table = imageTable(
      [
        image('a.jpg', seen(['cat', 0.93], ['cat', 0.8], ['dog', null])),
        image('b.jpg'),
        image('c.jpg', { status: 'failed', error: { code: 'IMAGE_EMPTY', message: 'The file is empty.' } }),
        image('d.jpg', { names: ['d.jpg', 'copy.jpg'] }),
      ],
      { columns: 80, rows: 10 },
    )
    expect(table.split('\n')).toEqual([
      '┌───────────────────┬───────────┬────────────────────┐',
      '│ image             │ analysis  │ observations       │',
      '├───────────────────┼───────────┼────────────────────┤',
      '│ a.jpg             │ completed │ cat 0.93 x2, dog   │',
      '│ b.jpg             │ completed │ nothing recognised │',
      '│ c.jpg             │ failed    │ IMAGE_EMPTY        │',
      '│ d.jpg +1 the same │ completed │ nothing recognised │',
      '└───────────────────┴───────────┴────────────────────┘',
    ])
  })

  test.each([200, 100, 60, 48])('fits into %d columns, whatever the names and labels are', (columns) => {
    const labels = Array.from({ length: 30 }, (_, index): [string, number] => [
      `ein langes Wort ${index}`,
      0.5,
    ])
    const images = [
      image(`folder/${'long-'.repeat(30)}name.jpg`, seen(...labels)),
      image('猫の写真'.repeat(20), seen(['自転車'.repeat(40), 0.5])),
      image('evil\u001b[2J\nname.jpg', seen(['\u001b[31mred\n\u202e', 0.1])),
    ]
    const table = imageTable(images, { columns, rows: 10 })
    for (const line of table.split('\n')) expect(widthOf(line)).toBeLessThanOrEqual(columns)
    for (const evil of ['\u001b', '\u202e']) expect(table).not.toContain(evil)
    expect(table.split('\n')).toHaveLength(7)
    expect(table).toMatch(/name\.jpg │ completed │ ein lang.*(\+\d+ more|…) +│/)
  })

  test('is not held up by labels that are whole sentences', () => {
    const sentence = 'a person in a red jacket who walks a small dog along the pavement. '
      .repeat(3)
      .slice(0, 200)
    const labels = Array.from({ length: 200 }, (_, index): [string, number] => [`${sentence}${index}`, 0.5])
    const images = Array.from({ length: 20 }, (_, index) => image(`${index}.jpg`, seen(...labels)))
    expect(imageTable(images, { columns: 80, rows: 20 })).toMatch(
      /│ 0\.jpg +│ completed │ a person in a red [^│]*… │/,
    )
  })

  test('shows so many images and counts the others', () => {
    const images = Array.from({ length: 9 }, (_, index) => image(`${index}.jpg`))
    expect(imageTable(images, { columns: 80, rows: 4 })).toMatch(/│ 3\.jpg.*\n.*\n… and 5 more; all are in/)
  })
})

test('the summary says what became of the images', () => {
  const counts = { total: 9, completed: 0, failed: 0, known: 0 }
  expect(summaryLine({ ...counts, completed: 9 }, 0, 3.2)).toBe('9 images: 9 analysed in 4 s.')
  expect(summaryLine({ ...counts, completed: 9, known: 9 }, 0, 3.2)).toBe('9 images: 9 known from before.')
  expect(summaryLine({ ...counts, completed: 5, failed: 2, known: 1 }, 2, 70)).toBe(
    '9 images: 4 analysed in 1 min 10 s, 1 known from before, 2 failed, 2 not looked at.',
  )
})

test('failures are named with their reasons', () => {
  const failed = image('a\n.jpg', { status: 'failed', error: { code: 'X', message: 'It is broken.' } })
  expect(failureLines([image('b.jpg')], [], null)).toEqual([])
  expect(
    failureLines([failed, image('b.jpg')], [{ message: '/c.jpg cannot be read.' }], new Error('Full.')),
  ).toEqual([
    '',
    'failed: a .jpg: It is broken.',
    'not read: /c.jpg cannot be read.',
    'stopped: Full.',
    'Run the same command again to try these again.',
  ])
})

test('the connection report fits into 80 columns, and is left out when no job ran', () => {
  const report = {
    jobs: 1_200,
    concurrency: 200,
    peakCalls: 200,
    engine: { peak: 6, size: 6 },
    application: { peak: 10, size: 10 },
    listener: false,
    totalRunMs: 1_200 * 15_300,
    totalHoldMs: 1_200 * 8.4,
    mostHoldMs: 131.2,
    longestHoldMs: 70.9,
  }
  const lines = connectionLines(report)
  expect(lines).toEqual([
    'jobs         1200 run here, up to 200 at a time; at most 200 in their call at once',
    'connections  at most 10 of 10 (application), 6 of 6 (engine)',
    'hold         8.4 ms of the 15.3 s that a job took on average (0.1%)',
    '             at most 131 ms by one job, 71 ms at a stretch; 10.1 s by all',
  ])
  expect(connectionLines({ ...report, listener: true })[1]).toBe(
    'connections  at most 10 of 10 (application), 6 of 6 (engine), 1 (listener)',
  )
  expect(connectionLines({ ...report, jobs: 0 })).toEqual([])
})
