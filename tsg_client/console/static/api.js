// Requests to the service, and whether it can be reached. Also what it offers, by its own description.

const BASE = "/v1/tsg/";

/** An answer that is an error: the service's own words. `fields` maps names of fields to what is wrong with them. */
export class Refusal extends Error {
	constructor(status, body, requestId) {
		super(body?.message ?? `The service answered with status ${status}.`);
		this.status = status;
		this.code = body?.code ?? "";
		this.requestId = requestId;
		this.fields = new Map((body?.errors ?? []).map((one) => [one.field, one.message]));
	}
}

/** The service did not answer. */
export class Unreachable extends Error {}

/** Tells whether the service can be reached: "lost" with the words why, and "back". */
export const connection = new EventTarget();
let isLost = false;

function heard(problem) {
	if (Boolean(problem) === isLost) return;
	isLost = Boolean(problem);
	connection.dispatchEvent(new CustomEvent(isLost ? "lost" : "back", { detail: problem }));
}

/** A new name for a write, so that it can be sent again without being done again. */
export function newKey() {
	return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * One request. Gives {status, body, etag, headers}; body is null for 204, 202 and 304.
 * Throws Refusal for an error of the service, Unreachable when there is no answer, and AbortError when `signal` says so.
 */
export async function request(method, path, { body, headers, signal, etag, seen } = {}) {
	const sent = { Accept: "application/json", ...headers };
	if (body !== undefined) sent["Content-Type"] = "application/json";
	if (etag) sent["If-Match"] = etag;
	if (seen) sent["If-None-Match"] = seen;
	let answer;
	let shown = null;
	try {
		answer = await fetch(path.startsWith("/") ? path : BASE + path, {
			method, signal, headers: sent, body: body === undefined ? undefined : JSON.stringify(body), cache: "no-store", redirect: "error",
		});
		const text = await answer.text();
		shown = text ? JSON.parse(text) : null;
	} catch (error) {
		if (error.name === "AbortError") throw error;
		if (answer && !answer.ok) throw new Refusal(answer.status, null, answer.headers.get("X-Request-Id"));
		heard("The connection is lost.");
		throw new Unreachable("There was no answer. If this was a change, look whether it was made before you try again.");
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

/** A write under a key of its own, that is tried again when its connection breaks. */
export async function write(method, path, more = {}) {
	const headers = { "Idempotency-Key": newKey(), ...more.headers };
	try {
		return await request(method, path, { ...more, headers });
	} catch (error) {
		if (!(error instanceof Unreachable)) throw error;
		await pause(1000, more.signal);
		return request(method, path, { ...more, headers });
	}
}

/** All objects of a list, page by page as they come. */
export async function* pages(path, { signal, limit = 1000 } = {}) {
	let next = `${path}${path.includes("?") ? "&" : "?"}limit=${limit}`;
	while (next) {
		const { body, headers } = await get(next, { signal });
		next = nextPage(headers);
		yield { body, total: Number(headers.get("X-Resource-Count") ?? body.length), last: !next };
	}
}

/** The address of the next page, null when there is none. */
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

/** Does what failed so go over by itself? */
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
 * Run `step` again and again until `signal`: it gives the milliseconds until the next time. While nobody looks it rests, and while the
 * service is away it is tried at growing pauses. A Refusal goes to `refused`, and ends it.
 */
export async function forever(step, signal, refused) {
	let failures = 0;
	try {
		while (!signal.aborted) {
			await visible(signal);
			try {
				const milliseconds = await step();
				failures = 0;
				await pause(milliseconds, signal);
			} catch (error) {
				if (!passes(error)) throw error;
				failures += 1;
				await rest(failures, signal);
			}
		}
	} catch (error) {
		if (error.name === "AbortError") return;
		if (!(error instanceof Refusal)) throw error;
		refused(error);
	}
}

/** What the service offers. */
export class Offer {
	constructor(description) {
		this.description = description;
	}

	static async load() {
		return new Offer((await get("openapi.json")).body);
	}

	#resolve(part) {
		let found = part;
		while (found?.$ref) found = found.$ref.slice(2).split("/").reduce((at, step) => at?.[step], this.description);
		return found;
	}

	#operation(method, path) {
		const wanted = path.replace(/\{\w+\}/g, "{}");
		const [, item] = Object.entries(this.description.paths).find(([one]) => one.replace(/\{\w+\}/g, "{}") === `/v1/tsg/${wanted}`) ?? [];
		return item?.[method.toLowerCase()];
	}

	/** Is there such a request, and if `parameter` is given does it take that? Names in braces may be any. */
	has(method, path, parameter) {
		const operation = this.#operation(method, path);
		if (!operation || !parameter) return Boolean(operation);
		return (operation.parameters ?? []).some((one) => this.#resolve(one).name === parameter);
	}

	/** The schema of a request's body, with all references in it resolved; null when there is none. */
	body(method, path) {
		const schema = this.#operation(method, path)?.requestBody?.content?.["application/json"]?.schema;
		return schema ? this.whole(schema) : null;
	}

	whole(schema) {
		const found = this.#resolve(schema);
		if (Array.isArray(found)) return found.map((one) => this.whole(one));
		if (!found || typeof found !== "object") return found;
		return Object.fromEntries(Object.entries(found).map(([name, value]) => [name, this.whole(value)]));
	}
}
