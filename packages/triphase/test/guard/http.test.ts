import { once } from 'node:events'
import http from 'node:http'
import http2 from 'node:http2'
import https from 'node:https'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import Anthropic from '@anthropic-ai/sdk'
import { PutObjectCommand, S3Client } from '@aws-sdk/client-s3'
import { generateText } from 'ai'
import axios from 'axios'
import got from 'got'
import OpenAI from 'openai'
import { request as undiciRequest } from 'undici'
import { expect, onTestFinished } from 'vitest'
import { useScene } from './scene.ts'

const scene = useScene()

scene.calls('fetch', async () => {
  const response = await fetch(`${scene.url}/v1?key=secret`, { method: 'POST', body: 'text' })
  expect(await response.json()).toEqual({ answer: 'a cat' })
})

scene.calls(
  'fetch-keep-alive',
  () => fetch(scene.url).then((response) => response.text()),
  () => fetch(scene.url).then((response) => response.text()),
)

scene.calls('websocket', async () => {
  const socket = new WebSocket(scene.url.replace('http', 'ws'))
  await new Promise((resolve) => socket.addEventListener('error', resolve))
})

scene.calls('undici', async () => (await undiciRequest(scene.url)).body.text())

scene.calls('node-http', () => get(scene.url))

scene.calls(
  'node-http-keep-alive',
  async (agent) => {
    const request = await get(scene.url, { agent })
    expect(request.reusedSocket).toBe(true)
  },
  async () => {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
    onTestFinished(() => agent.destroy())
    await get(scene.url, { agent })
    // The agent has it back when the request is closed.
    await new Promise((resolve) => setImmediate(resolve))
    return agent
  },
)

// The handshake fails: the call has been made by then.
scene.calls('node-https', () => once(https.get(`https://${scene.host}`), 'error'))

scene.calls('node-http2', async () => {
  const session = http2.connect(`http://${scene.http2Host}`)
  onTestFinished(() => session.close())
  await requestOn(session)
})

scene.calls('node-http2-session', requestOn, async () => {
  const session = http2.connect(`http://${scene.http2Host}`)
  onTestFinished(() => session.close())
  await requestOn(session)
  return session
})

scene.calls('axios', () => axios.get(scene.url))

scene.calls('got', () => got(scene.url).json())

scene.calls('ai-sdk', async () => {
  const provider = createOpenAICompatible({ name: 'local', baseURL: `${scene.url}/v1`, apiKey: 'secret' })
  const { text } = await generateText({ model: provider('m'), prompt: 'What is it?', maxRetries: 0 })
  expect(text).toBe('a cat')
})

scene.calls('openai', async () => {
  const client = new OpenAI({ baseURL: `${scene.url}/v1`, apiKey: 'secret', maxRetries: 0 })
  const messages = [{ role: 'user' as const, content: 'What is it?' }]
  const answer = await client.chat.completions.create({ model: 'm', messages })
  expect(answer.choices[0]?.message.content).toBe('a cat')
})

scene.calls('anthropic', async () => {
  const client = new Anthropic({ baseURL: scene.url, apiKey: 'secret', maxRetries: 0 })
  const messages = [{ role: 'user' as const, content: 'What is it?' }]
  const answer = await client.messages.create({ model: 'm', max_tokens: 9, messages })
  expect(answer.content).toMatchObject([{ text: 'a cat' }])
})

scene.calls('aws-sdk', async () => {
  const client = new S3Client({
    endpoint: scene.url,
    forcePathStyle: true,
    region: 'us-east-1',
    credentials: { accessKeyId: 'id', secretAccessKey: 'secret' },
  })
  onTestFinished(() => client.destroy())
  await client.send(new PutObjectCommand({ Bucket: 'images', Key: 'cat.jpg', Body: 'cat' }))
  expect(scene.requests).toEqual([expect.stringContaining('PUT /images/cat.jpg')])
})

async function get(url: string, options: http.RequestOptions = {}): Promise<http.ClientRequest> {
  const request = http.get(url, options)
  const [response] = (await once(request, 'response')) as [http.IncomingMessage]
  await once(response.resume(), 'end')
  return request
}

async function requestOn(session: http2.ClientHttp2Session): Promise<void> {
  const stream = session.request({ ':path': '/' })
  await once(stream.resume(), 'end')
}
