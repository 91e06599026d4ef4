// Tools in chat completions: offered, called, blocked, run.
import assert from 'node:assert/strict';
import {
  ask, chatTools, collect, desk, execTool, failure, heron, hidden, hiddenShown, page, program, question, scenario, sent,
  shape,
} from './desk.mjs';
import { PermissionDeniedError } from 'openai';

scenario('tools: parallel calls come byte for byte', async (client) => {
  await desk.answer({ body: await shape.chat({ tool_calls: [heron, page] }) });
  const [choice] = (await client.chat.completions.create({ ...ask, tools: chatTools })).choices;
  assert.deepEqual(choice.message.tool_calls, [heron, page]);
  assert.equal(choice.finish_reason, 'tool_calls');
  assert.deepEqual((await sent()).tools, chatTools);
});

scenario('tools: calls streamed in pieces are assembled', async (client) => {
  await desk.chat({ tool_calls: [heron, page] });
  const stream = client.chat.completions.stream({ ...ask, tools: chatTools });
  const done = [];
  stream.on('tool_calls.function.arguments.done', (event) => done.push([event.name, event.arguments]));
  const [choice] = (await stream.finalChatCompletion()).choices;
  assert.deepEqual(done, [heron, page].map((call) => [call.function.name, call.function.arguments]));
  assert.deepEqual(choice.message.tool_calls.map((call) => call.id), ['call_1', 'call_2']);
  assert.equal(choice.finish_reason, 'tool_calls');
});

scenario('tools: a blocked call is left out and said, plain', async (client) => {
  await desk.answer({ body: await shape.chat({ tool_calls: [program, heron] }) });
  const [choice] = (await client.chat.completions.create({ ...ask, tools: chatTools })).choices;
  assert.deepEqual(choice.message.tool_calls, [heron]);
  assert.match(choice.message.refusal, /exec_code/);
  assert.equal(choice.finish_reason, 'tool_calls');
});

scenario('tools: a blocked call is left out and said, streamed', async (client) => {
  await desk.chat({ tool_calls: [program, heron] });
  const chunks = await collect(await client.chat.completions.create({ ...ask, tools: chatTools, stream: true }));
  const calls = chunks.flatMap((chunk) => chunk.choices[0].delta.tool_calls ?? []);
  assert.deepEqual([...new Set(calls.map((call) => call.index))], [0]);
  assert.equal(calls.map((call) => call.function.arguments ?? '').join(''), heron.function.arguments);
  assert.match(chunks.map((c) => c.choices[0].delta.refusal ?? '').join(''), /exec_code/);
  assert.ok(!JSON.stringify(chunks).includes('print(1)'));
  const [blocked] = (await desk.outcome()).moderation.blocked_calls;
  assert.deepEqual(blocked, { tool: 'exec_code', rule: 'not_allowed', call_id: 'call_3' });
});

scenario('tools: an answer of blocked calls alone is filtered', async (client) => {
  await desk.chat({ tool_calls: [program] });
  const chunks = await collect(await client.chat.completions.create({ ...ask, tools: chatTools, stream: true }));
  assert.equal(chunks.at(-1).choices[0].finish_reason, 'content_filter');
});

scenario('tools: what was stripped is named in the headers', async (client) => {
  await desk.answer({ body: await shape.chat({ content: 'Hi.' }) });
  const body = { ...ask, tools: [...chatTools, execTool] };
  const { response } = await client.chat.completions.create(body).withResponse();
  assert.equal(response.headers.get('x-lukhas-tools-stripped'), 'exec_code');
  assert.deepEqual((await sent()).tools, chatTools);
});

scenario('tools: forcing one that is not allowed is a 403', async (client) => {
  const choice = { type: 'function', function: { name: 'exec_code' } };
  const call = client.chat.completions.create({ ...ask, tools: [execTool], tool_choice: choice }, { maxRetries: 3 });
  const error = await failure(call, PermissionDeniedError);
  assert.equal(error.code, 'policy_denied');
  assert.deepEqual(await desk.requests(), []);
});

const runnable = (seen) => [
  {
    type: 'function',
    function: {
      ...chatTools[0].function,
      parse: JSON.parse,
      function: ({ query, k }) => {
        seen.push([query, k]);
        return `No ${hidden} for ${query}.`;
      },
    },
  },
];

scenario('tools: runTools runs the loop, plain', async (client) => {
  await desk.answer({ body: await shape.chat({ tool_calls: [heron] }) });
  await desk.answer({ body: await shape.chat({ content: 'It wades.' }) });
  const seen = [];
  const runner = client.chat.completions.runTools({ ...ask, messages: [...question], tools: runnable(seen) });
  assert.equal(await runner.finalContent(), 'It wades.');
  assert.deepEqual(seen, [['heron', 3]]);
  const { messages } = await sent();
  assert.deepEqual(messages[1].tool_calls, [heron]);
  assert.deepEqual([messages[2].tool_call_id, messages[2].content], ['call_1', `No ${hiddenShown} for heron.`]);
});

scenario('tools: runTools runs the loop, streamed', async (client) => {
  await desk.chat({ tool_calls: [heron] });
  await desk.chat({ pieces: ['It ', 'wades.'] });
  const seen = [];
  const runner = client.chat.completions.runTools({ ...ask, messages: [...question], tools: runnable(seen), stream: true });
  assert.equal(await runner.finalContent(), 'It wades.');
  assert.deepEqual(seen, [['heron', 3]]);
  assert.equal((await desk.requests()).length, 2);
});

scenario('tools: runTools never runs a blocked call', async (client) => {
  await desk.chat({ tool_calls: [{ ...heron, function: { ...heron.function, arguments: '{"k":"three"}' } }] });
  const seen = [];
  const runner = client.chat.completions.runTools({ ...ask, messages: [...question], tools: runnable(seen), stream: true });
  const message = await runner.finalMessage();
  assert.match(message.refusal, /retrieve_knowledge.*schema/);
  assert.deepEqual(seen, []);
  assert.equal((await desk.requests()).length, 1);
});
