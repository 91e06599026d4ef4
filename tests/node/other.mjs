// Embeddings, moderations, models, raw answers, and what the gateway adds.
import assert from 'node:assert/strict';
import { PermissionDeniedError } from 'openai';
import {
  ask, collect, connect, desk, failure, forbidden, hidden, hiddenShown, scenario, sent, shape, textOf,
} from './desk.mjs';

// Exact in four bytes, so that base64 gives back the very same numbers.
const vector = [0.5, -0.25, 0, 1];
const input = ['a heron', 'a stork'];
const model = 'text-embedding-3-small';

scenario('embeddings: base64 is asked for and decoded', async (client) => {
  await desk.answer({ body: await shape.embedding({ arguments: [vector, [...vector].reverse()], as_base64: true }) });
  const answer = await client.embeddings.create({ model, input });
  assert.deepEqual(answer.data.map((entry) => entry.embedding), [vector, [...vector].reverse()]);
  assert.equal((await sent()).encoding_format, 'base64');
  assert.equal(answer.usage.prompt_tokens, 8);
});

scenario('embeddings: numbers pass as they are', async (client) => {
  await desk.answer({ body: await shape.embedding([vector, vector]) });
  const answer = await client.embeddings.create({ model, input, encoding_format: 'float', dimensions: 4 });
  assert.deepEqual(answer.data[1].embedding, vector);
  assert.deepEqual(await sent(), { model, input, encoding_format: 'float', dimensions: 4 });
});

scenario('embeddings: their input is screened', async (client) => {
  await desk.answer({ body: await shape.embedding([vector]) });
  await client.embeddings.create({ model, input: `the ${hidden}`, encoding_format: 'float' });
  assert.equal((await sent()).input, `the ${hiddenShown}`);
  await failure(client.embeddings.create({ model, input: ['a', forbidden] }), PermissionDeniedError);
  assert.equal((await desk.requests()).length, 1);
});

scenario('moderations: the verdict comes back whole', async (client) => {
  const body = await shape.moderation();
  await desk.answer({ body });
  const answer = await client.moderations.create({ input: `a ${forbidden}`, model: 'omni-moderation-latest' });
  assert.deepEqual({ ...answer }, body);
});

scenario('models: they are listed and retrieved', async (client) => {
  await desk.answer({ body: await shape.models(['gpt-4.1', 'gpt-4.1-mini']) });
  assert.deepEqual((await collect(await client.models.list())).map((one) => one.id), ['gpt-4.1', 'gpt-4.1-mini']);
  const name = 'ft:gpt-4.1-mini:acme::9xYz';
  await desk.answer({ body: await shape.model([name]) });
  assert.equal((await client.models.retrieve(name)).id, name);
});

scenario('raw: withResponse shows what the gateway says', async (client) => {
  const headers = { 'x-lukhas-mode': 'forged', 'set-cookie': 'a=b' };
  await desk.answer({ body: await shape.chat({ content: 'Hi.' }), headers });
  const { data, response, request_id: id } = await client.chat.completions.create(ask).withResponse();
  assert.equal(data.choices[0].message.content, 'Hi.');
  assert.match(response.headers.get('x-lukhas-audit-id'), /^aud_/);
  assert.match(response.headers.get('x-lukhas-policy'), /^pol_/);
  assert.equal(response.headers.get('x-lukhas-mode'), 'enforce');
  assert.equal(response.headers.get('x-lukhas-safety-mode'), 'balanced');
  assert.equal(typeof JSON.parse(response.headers.get('x-lukhas-parameters')), 'object');
  assert.equal(response.headers.get('x-upstream-request-id'), 'req_up_1');
  assert.equal(response.headers.get('set-cookie'), null);
  assert.equal(id, response.headers.get('x-request-id'));
});

scenario('raw: a streamed answer has them before its first chunk', async (client) => {
  await desk.chat({ pieces: ['A ', 'heron.'] });
  const { data, response } = await client.chat.completions.create({ ...ask, stream: true }).withResponse();
  const audit = response.headers.get('x-lukhas-audit-id');
  assert.equal(textOf(await collect(data)), 'A heron.');
  assert.equal((await desk.outcome({ audit })).status, 'ok');
});

scenario('raw: asResponse gives the bytes as they are on the wire', async (client) => {
  await desk.chat({ pieces: ['A ', 'heron.'] });
  const response = await client.chat.completions.create({ ...ask, stream: true }).asResponse();
  const text = await response.text();
  assert.ok(response.headers.get('content-type').startsWith('text/event-stream'));
  assert.ok(text.endsWith('data: [DONE]\n\n'));
});

scenario('extras: headers and body steer the call and stay here', async () => {
  await desk.answer({ body: await shape.chat({ content: 'Hi.' }) });
  const client = connect({ defaultHeaders: { 'X-Team': 'blue', 'OpenAI-Project': 'proj_1' } });
  const body = { ...ask, temperature: 0.9, lukhas: { signals: { alignment_risk: 0.8 } } };
  const options = { headers: { 'X-Lukhas-Signals': 'stress=0.7' }, query: { a: 'b' } };
  const { response } = await client.chat.completions.create(body, options).withResponse();
  assert.equal(response.headers.get('x-lukhas-safety-mode'), 'strict');
  const [received] = await desk.requests();
  assert.ok(Math.abs(received.body.temperature - 0.28) < 1e-9);
  assert.ok(!('lukhas' in received.body));
  assert.equal(received.headers['openai-project'], 'proj_1');
  assert.equal(received.path, '/v1/chat/completions');
  for (const name of ['x-lukhas-signals', 'x-team', 'x-stainless-lang']) assert.ok(!(name in received.headers), name);
});

scenario('extras: a violation makes the next call of its user strict', async () => {
  const client = connect({ apiKey: await desk.key({ tenant: 'strict-node' }) });
  await desk.answer({ body: await shape.chat({ content: `The ${forbidden}.` }) });
  const first = await client.chat.completions.create({ ...ask, safety_identifier: 'user-a' });
  assert.equal(first.choices[0].finish_reason, 'content_filter');
  const modes = [];
  for (const user of ['user-a', 'user-b']) {
    await desk.answer({ body: await shape.chat({ content: 'Hi.' }) });
    const call = client.chat.completions.create({ ...ask, safety_identifier: user });
    modes.push((await call.withResponse()).response.headers.get('x-lukhas-safety-mode'));
  }
  assert.deepEqual(modes, ['strict', 'balanced']);
});
