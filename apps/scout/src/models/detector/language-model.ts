import {
  type LanguageModelV4,
  type LanguageModelV4CallOptions,
  UnsupportedFunctionalityError,
} from '@ai-sdk/provider'
import { decodePixels } from '../../images.ts'
import type { Detector } from './detector.ts'

/** Under this name in `providerOptions`, `labels` tells the detector what to look for. */
export const DETECTOR_PROVIDER = 'scout-detector'

/**
 * The local detector as a model of the AI SDK: it takes a prompt with an image and answers with the JSON that a
 * language model is asked for. It does not read the prompt's text.
 */
export function detectorModel(detector: Detector): LanguageModelV4 {
  return {
    specificationVersion: 'v4',
    provider: DETECTOR_PROVIDER,
    modelId: 'coco-ssd',
    supportedUrls: {},
    async doGenerate(options) {
      const pixels = await decodePixels(imageOf(options))
      const detections = await detector.detect(pixels, labelsOf(options), options.abortSignal)
      const observations = detections.map((detection) => ({ ...detection, text: null }))
      return {
        content: [{ type: 'text', text: JSON.stringify({ observations }) }],
        finishReason: { unified: 'stop', raw: undefined },
        usage: {
          inputTokens: { total: undefined, noCache: undefined, cacheRead: undefined, cacheWrite: undefined },
          outputTokens: { total: undefined, text: undefined, reasoning: undefined },
        },
        warnings: [],
      }
    },
    async doStream() {
      throw new UnsupportedFunctionalityError({ functionality: 'streaming from the local detector' })
    },
  }
}

function imageOf({ prompt }: LanguageModelV4CallOptions): Uint8Array {
  for (const message of prompt) {
    if (message.role !== 'user') continue
    for (const part of message.content) {
      if (part.type !== 'file' || part.data.type !== 'data') continue
      const { data } = part.data
      return typeof data === 'string' ? Buffer.from(data, 'base64') : data
    }
  }
  throw new UnsupportedFunctionalityError({ functionality: 'a prompt without an image' })
}

function labelsOf({ providerOptions }: LanguageModelV4CallOptions): string[] | null {
  const labels = providerOptions?.[DETECTOR_PROVIDER]?.labels
  if (!Array.isArray(labels) || labels.length === 0) return null
  return labels.map((label) => String(label).trim().toLowerCase())
}
