// The Responses API: created, streamed, parsed, continued, fetched, cancelled, deleted.
import assert from 'node:assert/strict';
import { NotFoundError } from 'openai';
import { zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import {
  askResponse, collect, connect, desk, failure, forbidden, hidden, hiddenShown, responseTools, scenario, sent, shape,
} from './desk.mjs';

const Bird = z.object({ name: z.string(), wingspan_cm: z.number() });
const message = (...texts) => shape.message(texts);
const lookUp = () => shape.function_call(['retrieve_knowledge', { query: 'heron', k: 3 }]);
const program = () => shape.function_call(['exec_code', { source: 'print(1)' }, 2]);

scenario('responses: a created response keeps every field', async (client) => {
  const body = await shape.response({ output: [await message('A heron is ', 'a bird.')] });
  await desk.answer({ body });
  const answer = await client.responses.create(askResponse);
  assert.equal(answer.output_text, 'A heron is a bird.');
  const { output_text: _, ...rest } = answer;
  assert.deepEqual(rest, body);
  assert.deepEqual(await sent(), askResponse);
});

scenario('responses: a stream gives each event in order', async (client) => {
  const output = [await message('A grey heron.')];
  const events = await shape.response_events({ output });
  await desk.response({ output });
  const found = await collect(await client.responses.create({ ...askResponse, stream: true }));
  assert.deepEqual(found.map((event) => event.type), events.map((event) => event.type));
  assert.deepEqual(found.map((event) => event.sequence_number), events.map((event) => event.sequence_number));
  assert.equal(found.at(-1).response.usage.total_tokens, 123);
});

scenario('responses: the stream helper ends with the response', async (client) => {
  await desk.response({ output: [await shape.reasoning(['Birds first.']), await message('A grey ', 'heron.')] });
  const stream = client.responses.stream(askResponse);
  const deltas = [];
  stream.on('response.output_text.delta', (event) => deltas.push(event.delta));
  const final = await stream.finalResponse();
  assert.equal(deltas.join(''), 'A grey heron.');
  assert.equal(final.output_text, 'A grey heron.');
  assert.deepEqual(final.output.map((item) => item.type), ['reasoning', 'message']);
});

scenario('responses: parse reads the answer by a zod schema', async (client) => {
  await desk.answer({ body: await shape.response({ output: [await message('{"name":"Grey heron","wingspan_cm":175}')] }) });
  const answer = await client.responses.parse({ ...askResponse, text: { format: zodTextFormat(Bird, 'bird') } });
  assert.deepEqual(answer.output_parsed, { name: 'Grey heron', wingspan_cm: 175 });
  assert.equal((await sent()).text.format.name, 'bird');
});

scenario('responses: a streamed answer is parsed', async (client) => {
  await desk.response({ output: [await message(`{"name":"${hidden}","wingspan_cm":9}`)] });
  const stream = client.responses.stream({ ...askResponse, text: { format: zodTextFormat(Bird, 'bird') } });
  assert.deepEqual((await stream.finalResponse()).output_parsed, { name: hiddenShown, wingspan_cm: 9 });
});

scenario('responses: a function call arrives, streamed', async (client) => {
  const call = await lookUp();
  await desk.response({ output: [call] });
  const stream = client.responses.stream({ ...askResponse, tools: responseTools });
  const deltas = [];
  stream.on('response.function_call_arguments.delta', (event) => deltas.push(event.delta));
  const final = await stream.finalResponse();
  assert.equal(deltas.join(''), call.arguments);
  assert.deepEqual([final.output[0].name, final.output[0].call_id], ['retrieve_knowledge', call.call_id]);
});

scenario('responses: a blocked call is a refusal in its place, plain', async (client) => {
  const [blocked, call] = [await program(), await lookUp()];
  await desk.answer({ body: await shape.response({ output: [blocked, call] }) });
  const answer = await client.responses.create({ ...askResponse, tools: responseTools });
  assert.deepEqual(answer.output.map((item) => item.type), ['message', 'function_call']);
  assert.match(answer.output[0].content[0].refusal, /exec_code/);
  assert.equal(answer.output[1].arguments, call.arguments);
});

scenario('responses: a blocked call is a refusal in its place, streamed', async (client) => {
  await desk.response({ output: [await program(), await lookUp()] });
  const final = await client.responses.stream({ ...askResponse, tools: responseTools }).finalResponse();
  assert.deepEqual(final.output.map((item) => item.type), ['message', 'function_call']);
  assert.match(final.output[0].content[0].refusal, /exec_code/);
  assert.ok(!JSON.stringify(final).includes('print(1)'));
});

scenario('responses: the output of a function continues the response', async (client) => {
  const call = await lookUp();
  await desk.answer({ body: await shape.response({ output: [call], response_id: 'resp_node_1' }) });
  const first = await client.responses.create({ ...askResponse, tools: responseTools });
  const output = [await message('It wades.')];
  const more = { response_id: 'resp_node_2', previous_response_id: first.id };
  await desk.answer({ body: await shape.response({ output, ...more }) });
  const second = await client.responses.create({
    model: 'gpt-4.1-mini',
    previous_response_id: first.id,
    input: [{ type: 'function_call_output', call_id: call.call_id, output: `No ${hidden} here.` }],
  });
  assert.deepEqual([second.output_text, second.previous_response_id], ['It wades.', 'resp_node_1']);
  assert.equal((await sent()).input[0].output, `No ${hiddenShown} here.`);
});

scenario('responses: another tenant sees none of it', async (client) => {
  const output = [await message('Mine.')];
  await desk.answer({ body: await shape.response({ output, response_id: 'resp_node_mine' }) });
  await client.responses.create(askResponse);
  const other = connect({ apiKey: await desk.key({ tenant: 'somebody-else' }), maxRetries: 2 });
  await failure(other.responses.create({ ...askResponse, previous_response_id: 'resp_node_mine' }), NotFoundError);
  await failure(other.responses.retrieve('resp_node_mine'), NotFoundError);
  await failure(other.responses.delete('resp_node_mine'), NotFoundError);
  assert.equal((await desk.requests()).length, 1);
});

scenario('responses: a reasoning summary is passed and guarded', async (client) => {
  await desk.response({ output: [await shape.reasoning([`Not the ${hidden}.`]), await message('A heron.')] });
  const events = await collect(await client.responses.create({ ...askResponse, stream: true }));
  const deltas = events.filter((event) => event.type === 'response.reasoning_summary_text.delta');
  assert.equal(deltas.map((event) => event.delta).join(''), `Not the ${hiddenShown}.`);
  const { output, usage } = events.at(-1).response;
  assert.equal(output[0].summary[0].text, `Not the ${hiddenShown}.`);
  assert.equal(usage.output_tokens_details.reasoning_tokens, 64);
});

scenario('responses: a blocked text is incomplete with a refusal', async (client) => {
  await desk.response({ output: [await message(`Behold the ${forbidden} in flight.`)] });
  const events = await collect(await client.responses.create({ ...askResponse, stream: true }));
  const last = events.at(-1);
  assert.equal(last.type, 'response.incomplete');
  assert.equal(last.response.incomplete_details.reason, 'content_filter');
  assert.match(JSON.stringify(last.response.output), /forbidden-bird/);
  assert.ok(!JSON.stringify(events).includes('zanzibar'));
});

scenario("responses: the model's own refusal passes", async (client) => {
  await desk.response({ output: [await shape.refusal(['I cannot help with that.'])] });
  const stream = client.responses.stream(askResponse);
  const deltas = [];
  stream.on('response.refusal.delta', (event) => deltas.push(event.delta));
  const final = await stream.finalResponse();
  assert.equal(deltas.join(''), 'I cannot help with that.');
  assert.equal(final.output[0].content[0].refusal, 'I cannot help with that.');
});

scenario('responses: one is retrieved, cancelled and deleted', async (client) => {
  const id = 'resp_node_background';
  const queued = await shape.response({ output: [], response_id: id, background: true, status: 'queued', usage: null });
  await desk.answer({ body: queued });
  assert.equal((await client.responses.create({ ...askResponse, background: true })).status, 'queued');
  await desk.answer({ body: { ...queued, status: 'in_progress' } });
  assert.equal((await client.responses.retrieve(id)).status, 'in_progress');
  await desk.answer({ body: { ...queued, status: 'cancelled' } });
  assert.equal((await client.responses.cancel(id)).status, 'cancelled');
  await desk.answer({ body: { id, object: 'response', deleted: true } });
  await client.responses.delete(id);
  const asked = (await desk.requests()).slice(1).map(({ method, path }) => `${method} ${path}`);
  assert.deepEqual(asked, [`GET /v1/responses/${id}`, `POST /v1/responses/${id}/cancel`, `DELETE /v1/responses/${id}`]);
});
