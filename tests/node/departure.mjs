// Clients that leave: timeouts, AbortController, breaking out of a stream.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { ask, askResponse, collect, connect, desk, failure, scenario, shape, textOf } from './desk.mjs';

async function left() {
  assert.equal(await desk.closed(), true, 'the upstream call goes on');
  assert.equal((await desk.outcome()).status, 'client_gone');
}

scenario('departure: a timeout ends the call of the upstream', async () => {
  await desk.silence({ ms: 4_000 });
  const call = connect({ timeout: 700 }).chat.completions.create(ask);
  await failure(call, OpenAI.APIConnectionTimeoutError);
  await left();
});

scenario('departure: a timeout is tried again by the client', async () => {
  await desk.silence({ ms: 4_000 });
  await desk.answer({ body: await shape.chat({ content: 'Sooner.' }) });
  const answer = await connect({ timeout: 1_000, maxRetries: 1 }).chat.completions.create(ask);
  assert.equal(answer.choices[0].message.content, 'Sooner.');
  assert.equal((await desk.requests()).length, 2);
});

scenario('departure: abort of a plain call', async (client) => {
  await desk.silence({ ms: 4_000 });
  const controller = new AbortController();
  const call = client.chat.completions.create(ask, { signal: controller.signal });
  const caught = failure(call, OpenAI.APIUserAbortError);
  while ((await desk.requests()).length === 0);
  controller.abort();
  await caught;
  await left();
});

scenario('departure: abort in the middle of a stream ends the iteration', async (client) => {
  await desk.chat({ pieces: ['A ', 'grey '], done: false, ending: 'stall' });
  const stream = await client.chat.completions.create({ ...ask, stream: true });
  const seen = [];
  for await (const chunk of stream) {
    seen.push(chunk);
    if (textOf(seen) === 'A ') stream.controller.abort();
  }
  assert.ok(textOf(seen).startsWith('A '));
  await left();
});

scenario('departure: breaking out of a stream', async (client) => {
  await desk.chat({ pieces: ['A ', 'grey '], done: false, ending: 'stall' });
  for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
    if (chunk.choices[0].delta.content) break;
  }
  await left();
});

scenario('departure: abort of the stream helper', async (client) => {
  await desk.chat({ pieces: ['A ', 'grey '], done: false, ending: 'stall' });
  const stream = client.chat.completions.stream(ask);
  stream.on('content', () => stream.abort());
  await failure(stream.finalChatCompletion(), OpenAI.APIUserAbortError);
  assert.equal(stream.aborted, true);
  await left();
});

scenario('departure: breaking out of a streamed response', async (client) => {
  const events = (await shape.response_events({ output: [await shape.message(['A grey heron.'])] })).slice(0, 6);
  await desk.events({ events, named: true, ending: 'stall' });
  for await (const event of await client.responses.create({ ...askResponse, stream: true })) {
    if (event.type === 'response.output_text.delta') break;
  }
  await left();
});

scenario('departure: the next call works', async (client) => {
  await desk.chat({ pieces: ['A '], done: false, ending: 'stall' });
  const stream = await client.chat.completions.create({ ...ask, stream: true });
  for await (const _ of stream) break;
  await left();
  await desk.chat({ pieces: ['Still ', 'here.'] });
  assert.equal(textOf(await collect(await client.chat.completions.create({ ...ask, stream: true }))), 'Still here.');
});
