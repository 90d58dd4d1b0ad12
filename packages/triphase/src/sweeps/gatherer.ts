import { NaturalBatches } from '../batches.ts'

interface Waiting<Item, Outcome> {
  item: Item
  resolve: (outcome: Outcome) => void
  reject: (error: unknown) => void
}

const LARGEST_BATCH = 250

/** Writes items in natural batches, and tells each what became of it. */
export class Gatherer<Item, Outcome> {
  readonly #batches: NaturalBatches<Waiting<Item, Outcome>>

  /** @param write writes items and returns their outcomes, in order. */
  constructor(write: (items: readonly Item[]) => Promise<readonly Outcome[]>) {
    this.#batches = new NaturalBatches((batch) => settled(batch, write), {
      largest: LARGEST_BATCH,
      wholeTurns: true,
    })
  }

  add(item: Item): Promise<Outcome> {
    return new Promise((resolve, reject) => this.#batches.add({ item, resolve, reject }))
  }
}

async function settled<Item, Outcome>(
  batch: readonly Waiting<Item, Outcome>[],
  write: (items: readonly Item[]) => Promise<readonly Outcome[]>,
): Promise<void> {
  try {
    const outcomes = await write(batch.map(({ item }) => item))
    for (const [index, { resolve }] of batch.entries()) resolve(outcomes[index] as Outcome)
  } catch (error) {
    for (const { reject } of batch) reject(error)
  }
}
