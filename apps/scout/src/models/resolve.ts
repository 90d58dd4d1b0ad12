import { createAnthropic } from '@ai-sdk/anthropic'
import { createOpenAI } from '@ai-sdk/openai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import type { LanguageModelV4 } from '@ai-sdk/provider'
import type { ModelChoice, Secret } from '../settings.ts'
import { Detector } from './detector/detector.ts'
import { detectorModel } from './detector/language-model.ts'

/** A model that looks at images: one contract, whoever answers. */
export interface VisionModel {
  /** `PROVIDER:MODEL`, as it is stored with analyses and shown to people. */
  readonly name: string
  /** Whether it runs in this process and costs nothing. */
  readonly local: boolean
  readonly languageModel: LanguageModelV4
  /** What no message may repeat. */
  readonly key: Secret | null
  /** Ends what runs in the background for it. Calls that still run are refused. */
  close(): Promise<void>
}

/** The model that the settings name. Nothing is loaded or asked before the first call. */
export function resolveModel(choice: ModelChoice): VisionModel {
  if (choice.provider === 'detector') {
    const detector = new Detector()
    const close = () => detector.close()
    return { name: 'local:coco-ssd', local: true, languageModel: detectorModel(detector), key: null, close }
  }
  const name = `${choice.provider}:${choice.model}`
  return { name, local: false, languageModel: remoteModel(choice), key: choice.key, close: async () => {} }
}

type RemoteChoice = Exclude<ModelChoice, { provider: 'detector' }>

function remoteModel(choice: RemoteChoice): LanguageModelV4 {
  const url = choice.url === null ? {} : { baseURL: choice.url }
  const key = choice.key === null ? {} : { apiKey: choice.key.reveal() }
  switch (choice.provider) {
    case 'openai':
      // Chat completions rather than responses: gateways in front of OpenAI, set by SCOUT_MODEL_URL, speak it too.
      return createOpenAI({ ...url, ...key }).chat(choice.model)
    case 'anthropic':
      return createAnthropic({ ...url, ...key }).languageModel(choice.model)
    case 'compatible': {
      const settings = { name: 'compatible', baseURL: choice.url, supportsStructuredOutputs: true }
      return createOpenAICompatible({ ...settings, ...key }).chatModel(choice.model)
    }
  }
}
