// The same work for Restate: five durable steps, and five durable HTTP calls. PORT and TOOL_URL come from the environment.
import http from "node:http";
import * as restate from "@restatedev/restate-sdk";

// The SDK wants Node.js 22; this is all that 20 lacks of it.
Promise.withResolvers ??= function () {
    const made = {};
    made.promise = new this((resolve, reject) => Object.assign(made, { resolve, reject }));
    return made;
};

const agent = new http.Agent({ keepAlive: true, maxSockets: 1000 });
const STEPS = 5;

const ask = (n) =>
    new Promise((resolve, reject) => {
        const body = JSON.stringify({ n });
        const headers = { "Content-Type": "application/json", "Content-Length": body.length };
        const request = http.request(process.env.TOOL_URL + "/ask", { method: "POST", agent, headers }, (answer) => {
            let text = "";
            answer.on("data", (part) => (text += part));
            answer.on("end", () => (answer.statusCode === 200 ? resolve(JSON.parse(text)) : reject(new Error(`HTTP ${answer.statusCode}`))));
        });
        request.on("error", reject);
        request.end(body);
    });

const bench = restate.service({
    name: "bench",
    handlers: {
        steps: async (ctx, input) => {
            let n = input.n;
            for (let i = 0; i < STEPS; i++) n = await ctx.run(`step${i}`, () => n + 1);
            return { n };
        },
        calls: async (ctx, input) => {
            let n = input.n;
            for (let i = 0; i < STEPS; i++) n += (await ctx.run(`call${i}`, () => ask(n))).ok ? 1 : 0;
            return { n };
        },
    },
});

await restate.endpoint().bind(bench).listen(Number(process.env.PORT));
