// Requests to the service, and whether it can be reached. Also what it offers, by its own description.

const BASE = "/v1/tsg/";

/** An error of the service, in its own words. `fields` maps names of fields to what is wrong with them. */
export class Refusal extends Error {
	constructor(status, body, requestId) {
		super(body?.message ?? `The service answered with status ${status}.`);
		this.status = status;
		this.requestId = requestId;
		this.fields = new Map((body?.errors ?? []).map((one) => [one.field, one.message]));
	}
}

/** The service did not answer. */
class Unreachable extends Error {}

/** Whether the service can be reached: events "lost", with the words why, and "back". */
export const connection = new EventTarget();
let isLost = false;

function heard(problem) {
	if (Boolean(problem) === isLost) return;
	isLost = Boolean(problem);
	connection.dispatchEvent(new CustomEvent(isLost ? "lost" : "back", { detail: problem }));
}

/** One request: {status, body, etag, headers}, the body null without one. Throws Refusal, Unreachable, and AbortError by `signal`. */
export async function request(method, path, { body, headers, signal, etag, seen } = {}) {
	const sent = { Accept: "application/json", ...headers };
	if (body !== undefined) sent["Content-Type"] = "application/json";
	if (etag) sent["If-Match"] = etag;
	if (seen) sent["If-None-Match"] = seen;
	let answer;
	let shown = null;
	try {
		answer = await fetch(path.startsWith("/") ? path : BASE + path, {
			method, signal, headers: sent, body: JSON.stringify(body), cache: "no-store", redirect: "error",
		});
		const text = await answer.text();
		shown = text ? JSON.parse(text) : null;
	} catch (error) {
		if (error.name === "AbortError") throw error;
		if (answer && !answer.ok) throw new Refusal(answer.status, null, answer.headers.get("X-Request-Id"));
		heard("The connection is lost.");
		throw new Unreachable("There was no answer. Look whether a change was made before you try again.");
	}
	if (answer.status === 502 || (answer.status === 503 && method === "GET")) {
		heard(shown?.message ?? "The service does not answer.");
		throw new Unreachable(shown?.message ?? "The service does not answer.");
	}
	heard(null);
	if (!answer.ok && answer.status !== 304) throw new Refusal(answer.status, shown, answer.headers.get("X-Request-Id"));
	return { status: answer.status, body: shown, etag: answer.headers.get("ETag"), headers: answer.headers };
}

export const get = (path, more) => request("GET", path, more);

/** A write under a key of its own: when its connection breaks it is sent again, and done once. */
export async function write(method, path, more = {}) {
	const sent = { ...more, headers: { "Idempotency-Key": crypto.getRandomValues(new Uint32Array(4)).join("-") } };
	try {
		return await request(method, path, sent);
	} catch (error) {
		if (!(error instanceof Unreachable)) throw error;
		await pause(1000);
		return request(method, path, sent);
	}
}

/** All objects of a list, page by page as they come. */
export async function* pages(path, { signal }) {
	let next = `${path}?limit=1000`;
	while (next) {
		const { body, headers } = await get(next, { signal });
		next = nextPage(headers);
		yield { body, total: Number(headers.get("X-Resource-Count") ?? body.length), last: !next };
	}
}

export function nextPage(headers) {
	return /^<([^>]+)>; *rel="?next"?$/.exec(headers.get("Link") ?? "")?.[1] ?? null;
}

/** All objects of a list. */
export async function all(path, more) {
	const found = [];
	for await (const page of pages(path, more)) found.push(...page.body);
	return found;
}

export function pause(milliseconds, signal) {
	return new Promise((resolve, reject) => {
		const timer = setTimeout(done, milliseconds);
		function done() {
			signal?.removeEventListener("abort", stop);
			resolve();
		}
		function stop() {
			clearTimeout(timer);
			reject(new DOMException("stopped", "AbortError"));
		}
		if (signal?.aborted) stop();
		else signal?.addEventListener("abort", stop, { once: true });
	});
}

/** Resolves once somebody looks at the page. */
function visible(signal) {
	if (document.visibilityState === "visible") return Promise.resolve();
	return new Promise((resolve, reject) => {
		document.addEventListener("visibilitychange", () => resolve(), { once: true, signal });
		signal.addEventListener("abort", () => reject(new DOMException("stopped", "AbortError")), { once: true });
	});
}

/** Does what failed so pass by itself? */
export const passes = (error) => error instanceof Unreachable || (error instanceof Refusal && [429, 500, 503].includes(error.status));

/** The pause after so many failures in a row: it ends early when the connection is back. */
export async function rest(failures, signal) {
	const over = new AbortController();
	const back = new Promise((resolve) => {
		for (const [source, name] of [[connection, "back"], [window, "online"]]) source.addEventListener(name, resolve, { signal: over.signal });
	});
	try {
		await Promise.race([pause(Math.min(10000, 500 * 2 ** failures), AbortSignal.any([signal, over.signal])), back]);
	} finally {
		over.abort();
	}
}

/**
 * Run `step` again and again until `signal`: it gives the milliseconds until the next time. It rests while nobody looks, and longer and longer
 * while the service is away. A Refusal goes to `refused`, and ends it. Gives a function that ends the pause.
 */
export function forever(step, signal, refused, milliseconds = 0) {
	let isDue = false;
	let wake;
	const run = async () => {
		for (let failures = 0; !signal.aborted;) {
			try {
				if (!isDue) await Promise.race([pause(milliseconds, signal), new Promise((resolve) => (wake = resolve))]);
				await visible(signal);
				isDue = false;
				milliseconds = await step();
				failures = 0;
			} catch (error) {
				if (!passes(error)) throw error;
				failures += 1;
				milliseconds = 0;
				await rest(failures, signal);
			}
		}
	};
	run().catch((error) => {
		if (error instanceof Refusal) refused(error);
		else if (error.name !== "AbortError") throw error;
	});
	return () => {
		isDue = true;
		wake();
	};
}

/** Whose groups the pages show, and of which service. */
export const about = { account: "", service: "" };
let description;

/** Read what the service offers, if that is not known. */
export async function learn() {
	description ??= (await get("openapi.json")).body;
}

/** The schema of a request's body, with all references in it resolved. Braces in the path stand for any name in them. */
export function bodyOf(method, path) {
	const [, item] = Object.entries(description.paths).find(([one]) => one.replace(/\w+\}/g, "}") === BASE + path);
	return whole(item[method.toLowerCase()].requestBody.content["application/json"].schema);
}

function whole(schema) {
	let found = schema;
	while (found?.$ref) found = found.$ref.slice(2).split("/").reduce((at, step) => at[step], description);
	if (Array.isArray(found)) return found.map(whole);
	if (!found || typeof found !== "object") return found;
	return Object.fromEntries(Object.entries(found).map(([name, value]) => [name, whole(value)]));
}
