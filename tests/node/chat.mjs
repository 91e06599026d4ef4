// Chat completions: plain, streamed, by the helpers, and with structured output.
import assert from 'node:assert/strict';
import { zodResponseFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import { ask, collect, connect, desk, failure, forbidden, hiddenShown, scenario, sent, shape, textOf } from './desk.mjs';

const Bird = z.object({ name: z.string(), wingspan_cm: z.number() });
const birdFormat = zodResponseFormat(Bird, 'bird');

scenario('chat: a plain answer keeps every field', async (client) => {
  const body = await shape.chat({ content: 'A heron is a bird.' });
  await desk.answer({ body });
  const answer = await client.chat.completions.create(ask);
  assert.deepEqual({ ...answer }, body);
  assert.match(answer._request_id, /^req_/);
  assert.deepEqual(await sent(), ask);
});

scenario('chat: a stream is iterated chunk by chunk', async (client) => {
  await desk.chat({ pieces: ['A ', 'grey ', 'heron.'] });
  const chunks = await collect(await client.chat.completions.create({ ...ask, stream: true }));
  assert.equal(textOf(chunks), 'A grey heron.');
  assert.equal(chunks.at(-1).choices[0].finish_reason, 'stop');
  assert.equal(chunks.length, 5);
});

scenario('chat: the usage chunk comes last', async (client) => {
  await desk.chat({ pieces: ['Hi.'], usage: true });
  const options = { ...ask, stream: true, stream_options: { include_usage: true } };
  const last = (await collect(await client.chat.completions.create(options))).at(-1);
  assert.deepEqual(last.choices, []);
  assert.equal(last.usage.total_tokens, 29);
  assert.equal((await desk.outcome()).usage.total_tokens, 29);
});

scenario('chat: a stream can be read twice by tee', async (client) => {
  await desk.chat({ pieces: ['A ', 'heron.'] });
  const [left, right] = (await client.chat.completions.create({ ...ask, stream: true })).tee();
  assert.deepEqual([textOf(await collect(left)), textOf(await collect(right))], ['A heron.', 'A heron.']);
});

scenario('chat: a stream goes on as a readable stream to a browser', async (client) => {
  await desk.chat({ pieces: ['A ', 'heron.'] });
  const stream = await client.chat.completions.create({ ...ask, stream: true });
  const text = await new Response(stream.toReadableStream()).text();
  assert.equal(textOf(text.trim().split('\n').map((line) => JSON.parse(line))), 'A heron.');
});

scenario('chat: the stream helper gives content and the final completion', async (client) => {
  await desk.chat({ pieces: ['A ', 'grey ', 'heron.'], usage: true });
  const stream = client.chat.completions.stream({ ...ask, stream_options: { include_usage: true } });
  const deltas = [];
  stream.on('content', (delta) => deltas.push(delta));
  const final = await stream.finalChatCompletion();
  assert.equal(deltas.join(''), 'A grey heron.');
  assert.equal(final.choices[0].message.content, 'A grey heron.');
  assert.equal(await stream.finalContent(), 'A grey heron.');
  assert.equal((await stream.totalUsage()).total_tokens, 29);
});

scenario('chat: several choices keep their index', async (client) => {
  const [one, two] = [await shape.chat_chunks(['grey ', 'heron']), await shape.chat_chunks({ index: 1 })];
  await desk.events({ events: one.flatMap((chunk, place) => [chunk, ...two.slice(place, place + 1)]), done: true });
  const chunks = await collect(await client.chat.completions.create({ ...ask, n: 2, stream: true }));
  assert.deepEqual([textOf(chunks), textOf(chunks, 1)], ['grey heron', '']);
  const finished = chunks.flatMap((c) => c.choices).filter((c) => c.finish_reason);
  assert.deepEqual(finished.map((c) => [c.index, c.finish_reason]).sort(), [[0, 'stop'], [1, 'stop']]);
});

scenario('chat: a blocked choice leaves its neighbours whole', async (client) => {
  const texts = ['A grey heron.', `Here: ${forbidden}.`, 'A night heron.'];
  const choices = [];
  for (const [index, content] of texts.entries()) choices.push(await shape.choice({ content, index }));
  await desk.answer({ body: await shape.chat({ choices }) });
  const answer = await client.chat.completions.create({ ...ask, n: 3 });
  assert.deepEqual(answer.choices.map((c) => c.message.content), [texts[0], null, texts[2]]);
  assert.deepEqual(answer.choices.map((c) => c.finish_reason), ['stop', 'content_filter', 'stop']);
  assert.match(answer.choices[1].message.refusal, /forbidden-bird.*inc_/);
});

scenario('chat: log probabilities go with their tokens', async (client) => {
  await desk.chat({ pieces: ['A', ' grey', ' heron'], logprobs: true });
  const final = await client.chat.completions.stream({ ...ask, logprobs: true }).finalChatCompletion();
  const tokens = final.choices[0].logprobs.content;
  assert.equal(tokens.map((entry) => entry.token).join(''), 'A grey heron');
  assert.deepEqual(tokens[0].bytes, [65]);
});

scenario('chat: parse reads the answer by a zod schema', async (client) => {
  await desk.answer({ body: await shape.chat({ content: '{"name":"Grey heron","wingspan_cm":175}' }) });
  const answer = await client.chat.completions.parse({ ...ask, response_format: birdFormat });
  assert.deepEqual(answer.choices[0].message.parsed, { name: 'Grey heron', wingspan_cm: 175 });
  assert.deepEqual((await sent()).response_format, JSON.parse(JSON.stringify(birdFormat)));
});

scenario('chat: a streamed answer is parsed, a redaction inside it included', async (client) => {
  await desk.chat({ pieces: ['{"name":"quok', 'ka-wr', 'en","wingspan_cm":9}'] });
  const final = await client.chat.completions.stream({ ...ask, response_format: birdFormat }).finalChatCompletion();
  assert.deepEqual(final.choices[0].message.parsed, { name: hiddenShown, wingspan_cm: 9 });
});

scenario('chat: parse of an answer that was cut is a LengthFinishReasonError', async (client) => {
  await desk.answer({ body: await shape.chat({ content: '{"name":"Gr', finish: 'length' }) });
  const error = await failure(client.chat.completions.parse({ ...ask, response_format: birdFormat }), Error);
  assert.match(error.message, /length limit was reached/);
});

scenario('chat: parse of what the gateway blocks is a ContentFilterFinishReasonError', async (client) => {
  await desk.answer({ body: await shape.chat({ content: `{"name":"${forbidden}","wingspan_cm":1}` }) });
  const error = await failure(client.chat.completions.parse({ ...ask, response_format: birdFormat }), Error);
  assert.match(error.message, /rejected by the content filter/);
  assert.equal((await desk.outcome()).status, 'blocked');
});

scenario('chat: the stream helper raises for what the gateway blocks', async (client) => {
  await desk.chat({ pieces: ['{"name":"', forbidden, '"}'] });
  const stream = client.chat.completions.stream({ ...ask, response_format: birdFormat });
  const error = await failure(stream.finalChatCompletion(), Error);
  assert.match(error.message, /content filter/);
});

scenario('chat: a blocked stream ends with a refusal and content_filter', async (client) => {
  await desk.chat({ pieces: ['Behold the zan', 'zibar-bus', 'tard in flight', ' and more.'] });
  const chunks = await collect(await client.chat.completions.create({ ...ask, stream: true }));
  assert.equal(textOf(chunks), 'Behold the ');
  assert.match(chunks.map((c) => c.choices[0].delta.refusal ?? '').join(''), /forbidden-bird/);
  assert.equal(chunks.at(-1).choices[0].finish_reason, 'content_filter');
  assert.ok(!JSON.stringify(chunks).includes('zibar'));
});

scenario('chat: the model refuses by itself', async (client) => {
  await desk.chat({ refusal: ["I'm sorry, ", 'I cannot.'] });
  const stream = client.chat.completions.stream({ ...ask, response_format: birdFormat });
  const deltas = [];
  stream.on('refusal.delta', (event) => deltas.push(event.delta));
  const { message, finish_reason } = (await stream.finalChatCompletion()).choices[0];
  assert.equal(deltas.join(''), "I'm sorry, I cannot.");
  assert.deepEqual([message.refusal, message.parsed, finish_reason], ["I'm sorry, I cannot.", null, 'stop']);
});

scenario('chat: unicode is unharmed both ways', async (client) => {
  const text = 'h\u00e9ron \u30b5\u30ae \u{1f9d1}\u200d\u{1f52c} \u{1f3f4}\u2028 \u0000 \ufeff \u202e end';
  await desk.chat({ pieces: [...text] });
  const messages = [{ role: 'user', content: text }];
  assert.equal(textOf(await collect(await client.chat.completions.create({ ...ask, messages, stream: true }))), text);
  assert.equal((await sent()).messages[0].content, text);
});

scenario('chat: an empty answer is an empty answer', async (client) => {
  await desk.chat({ pieces: [] });
  const chunks = await collect(await client.chat.completions.create({ ...ask, stream: true }));
  assert.equal(textOf(chunks), '');
  assert.equal(chunks.at(-1).choices[0].finish_reason, 'stop');
});

scenario('chat: a very long plain answer is whole', async (client) => {
  const content = 'The heron stands still. '.repeat(40_000);
  await desk.answer({ body: await shape.chat({ content }) });
  assert.equal((await client.chat.completions.create(ask)).choices[0].message.content, content);
});

scenario('chat: a line of two megabytes is whole', async (client) => {
  const text = 'stork heron '.repeat(170_000);
  await desk.chat({ pieces: [text] });
  assert.equal(textOf(await collect(await client.chat.completions.create({ ...ask, stream: true }))), text);
});

scenario('chat: a thousand chunks arrive in order', async (client) => {
  const pieces = Array.from({ length: 1_000 }, (_, number) => `${number} herons, `);
  await desk.chat({ pieces });
  assert.equal(textOf(await collect(await client.chat.completions.create({ ...ask, stream: true }))), pieces.join(''));
});

scenario('chat: CRLF and comments are read', async (client) => {
  const chunks = await shape.chat_chunks(['h\u00e9', 'ron \u{1f426}']);
  const events = chunks.map((chunk) => `: ping\r\n\r\ndata: ${JSON.stringify(chunk)}\r\n\r\n`);
  await desk.events({ events: [...events, 'data: [DONE]\r\n\r\n'] });
  const found = await collect(await client.chat.completions.create({ ...ask, stream: true }));
  assert.equal(textOf(found), 'h\u00e9ron \u{1f426}');
});

scenario('chat: fifty streams at once get their own answers', async (client) => {
  await desk.chat({ pieces: ['A ', 'grey ', 'heron.'], between_ms: 2, times: 50 });
  const questions = Array.from({ length: 50 }, (_, number) => `Question ${number}`);
  const answers = await Promise.all(
    questions.map(async (content) => {
      const body = { model: 'm', messages: [{ role: 'user', content }], stream: true };
      return textOf(await collect(await client.chat.completions.create(body)));
    }),
  );
  assert.deepEqual([...new Set(answers)], ['A grey heron.']);
  const asked = (await desk.requests()).map((request) => request.body.messages[0].content);
  assert.deepEqual(asked.sort(), questions.sort());
});

scenario('chat: fields of tomorrow pass both ways', async () => {
  const body = await shape.chat({ content: 'Hi.' });
  body.choices[0].message.mood = 'calm';
  await desk.answer({ body: { ...body, weather: { sky: 'clear' } } });
  const answer = await connect().chat.completions.create({ ...ask, seed_of_tomorrow: 7 });
  assert.equal((await sent()).seed_of_tomorrow, 7);
  assert.deepEqual([answer.weather, answer.choices[0].message.mood], [{ sky: 'clear' }, 'calm']);
});
