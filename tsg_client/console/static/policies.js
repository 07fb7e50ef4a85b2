// The policies of a group: what makes it scale itself, what each decided last, and what a new one would.

import { forever, get, Refusal, request, write } from "./api.js";
import { each, h, put, renew } from "./dom.js";
import { Form, Incomplete } from "./form.js";
import { moment, timeElement, until } from "./format.js";
import { button, card, confirm, dialog, empty, menu, pill, problem, reveal, segments, table, toast } from "./ui.js";
import { phrase } from "./words.js";

// Fields that all kinds have, and those of each.
const COMMON = ["policy_name", "mode", "cooldown"];
const KINDS = {
	schedule: ["At times", "Sets a capacity, or a bound, by the clock", ["schedule", "set", "duration_seconds", "misfire", "misfire_grace_seconds"]],
	target: ["By a target", "Keeps a measure where it should be", ["metric", "target", "per", "tolerance", "stabilization", "max_step", "fallback"]],
	step: ["By steps", "Grows and shrinks by ranges of a measure", ["metric", "steps", "for_seconds"]],
	webhook: ["By a webhook", "Changes the capacity when an address is called", ["change", "on_bound"]],
};
const NEEDED = { schedule: ["schedule", "set"], target: ["metric", "target"], step: ["metric", "steps"], webhook: ["change"] };
const RESULTS = { changed: "good", held: "idle", clamped: "wait", cooldown: "idle", tolerance: "good", missing_data: "wait", suspended: "wait", shadow: "idle", converging: "busy" };
const REST = 10000;

/** A policy in a sentence. */
function summary(policy) {
	const { schedule, set, metric, target, change, duration_seconds: seconds } = policy;
	const what = set ? Object.entries(set).filter(([, value]) => value !== null).map(([name, value]) => `${phrase(name).toLowerCase()} ${value}`).join(", ") : "";
	if (policy.kind === "schedule") return `${what} ${schedule.at ? `at ${moment(schedule.at)}` : `at ${schedule.cron} (${schedule.time_zone ?? "UTC"})`}${seconds ? `, for ${seconds} s` : ""}`;
	const measure = metric ? metric.measure ?? metric.name ?? metric.query : "";
	if (policy.kind === "target") return `${measure} at ${target}${policy.per === "group" ? " for the group" : ""}`;
	if (policy.kind === "step") return `${policy.steps?.length ?? 0} steps by ${measure}`;
	return policy.kind === "webhook" ? `${change} when it is called` : phrase(policy.kind ?? "");
}

/** The card: its element, `begin` to keep it live, `renew` to read at once. */
export async function show({ offer, path, signal }) {
	const list = h("ul.policies");
	const nothing = empty("No policies", "A policy scales the group by the clock, by a measure, or when a webhook is called.");
	const element = card("Policies", { class: "whole", actions: [button("New policy", { class: "small", onclick: () => edit("schedule") }, "plus")] }, nothing, list);
	const at = (one, rest = "") => `${path}/policies/${one.id}${rest}`;
	const coming = new Map();

	/** The next times of a schedule, by the service's own reckoning: asked for once, and when the first has passed. */
	async function nextOf(one) {
		const known = coming.get(one.id);
		if (known?.of === one.updated_at && !(Date.parse(known.next[0]) < Date.now())) return known.next;
		const body = Object.fromEntries(Object.keys(offer.body("POST", "groups/{}/policies").properties).filter((name) => name in one).map((name) => [name, one[name]]));
		const next = await request("POST", `${path}/policies/preview`, { body, signal }).then((answer) => answer.body.next ?? [], (error) => {
			if (!(error instanceof Refusal)) throw error;
			return [];
		});
		coming.set(one.id, { of: one.updated_at, next });
		return next;
	}

	async function read() {
		const [found, decided] = await Promise.all([get(`${path}/policies`, { signal }), offer.has("GET", "groups/{}/decisions") ? get(`${path}/decisions?limit=100`, { signal }) : { body: [] }]);
		const isSeen = offer.has("POST", "groups/{}/policies/preview");
		await Promise.all(found.body.map(async (one) => {
			one.next = isSeen && one.kind === "schedule" ? await nextOf(one) : [];
		}));
		const last = new Map([...decided.body].reverse().map((one) => [one.policy_id, one]));
		nothing.hidden = found.body.length > 0;
		each(list, found.body, (one) => one.id, () => h("li"), (item, one) => {
			const decision = last.get(one.id);
			renew(item, JSON.stringify([one, decision]), () => [h("div.policy-head", h("b", one.policy_name), h("span.quiet", summary(one)), one.mode !== "active" && pill(phrase(one.mode), "idle"), actions(one)),
				decision && h("p.small", pill(phrase(decision.result), RESULTS[decision.result] ?? "idle"), ` ${decision.message.replace(`${one.policy_name}: `, "")} `, h("span.quiet", timeElement(decision.last_at ?? decision.at))),
				one.next.length > 0 && h("p.quiet.small", "Next: ", one.next.slice(0, 3).map((time, index) => [index > 0 && ", ", h("time", { datetime: time, title: until(time) }, moment(time))]))]);
		});
		return REST;
	}
	const again = () => read().catch(() => {});
	const begin = () => forever(read, signal, (error) => put(element, problem(error)));

	function actions(one) {
		return menu(`Actions for ${one.policy_name}`, [
			["Decisions", "search", () => decisions(one)],
			["Edit", "edit", () => get(at(one)).then(({ body, etag }) => edit(body.kind, body, etag)).catch((error) => toast(error.message, "bad"))],
			one.kind === "webhook" && offer.has("POST", "groups/{}/policies/{}/rotate") && ["New address", "swap", () => rotate(one)],
			["Delete", "trash", () => confirm(`Delete ${one.policy_name}`, "The group keeps the capacity that it has.", "Delete policy", async () => {
				await write("DELETE", at(one));
				toast(`${one.policy_name} is deleted.`);
				again();
			}), "bad"],
		].filter(Boolean));
	}

	function rotate(one) {
		confirm(`New address for ${one.policy_name}`, "The address of before stops working at once.", "Make a new one", async () => tell((await write("POST", at(one, "/rotate"))).body));
	}

	/** The address of a webhook is shown once. */
	function tell(policy) {
		if (policy?.webhook_url) reveal(`The address of ${policy.policy_name}`, "It is shown this once: keep it now. Anybody who has it can scale the group.", "Address", policy.webhook_url);
	}

	async function decisions(one) {
		const rows = h("tbody");
		dialog({ title: `Decisions of ${one.policy_name}`, wide: true, body: [table(["When", "Result", "Capacity", "Why"], rows, "small")] });
		try {
			const { body } = await get(`${at(one, "/decisions")}?limit=100`);
			put(rows, body.length ? body.map((each_) => h("tr", h("td", timeElement(each_.last_at ?? each_.at), each_.times > 1 && h("span.quiet", ` ×${each_.times}`)), h("td", pill(phrase(each_.result), RESULTS[each_.result] ?? "idle")),
				h("td", each_.capacity_after === each_.capacity_before ? each_.capacity_before : `${each_.capacity_before} → ${each_.capacity_after}`), h("td", each_.message))) : h("tr", h("td.quiet", "It has decided nothing yet.")));
		} catch (error) {
			toast(error.message, "bad");
		}
	}

	/** A form for a policy of a kind; the kind can be chosen as long as the policy is new. A change is for the policy as it was read, by its ETag. */
	function edit(kind, policy, etag) {
		const whole = offer.body("POST", "groups/{}/policies");
		const shape = h("div");
		const preview = h("div", { class: "plan", "aria-live": "polite" });
		let form;
		const body = () => ({ kind, ...form.read() });
		const choose = (next) => {
			const before = form?.read() ?? policy ?? {};
			kind = next;
			const names = [...COMMON, ...KINDS[kind][2]];
			const needed = ["policy_name", ...NEEDED[kind]];
			form = new Form({ ...whole, required: needed }, { first: ["policy_name", ...KINDS[kind][2], "mode"].filter((name) => needed.includes(name) || name === "mode" || name === "duration_seconds"), skip: Object.keys(whole.properties).filter((name) => !names.includes(name)), values: before, labels: { policy_name: "Name" } });
			put(shape, h("p.quiet", KINDS[kind][1]), form.element);
			put(preview);
		};
		const kinds = segments(Object.entries(KINDS).map(([name, [label]]) => [name, label]), kind, choose, "Kind");
		choose(kind);
		const look = async () => {
			if (!form.isRight()) return;
			try {
				const { body: found } = await request("POST", `${path}/policies/preview`, { body: body() });
				put(preview, h("div.planned", h("h3", "What it would do now"), (found.outcomes ?? []).map((one) => h("p", pill(phrase(one.result), RESULTS[one.result] ?? "idle"), ` ${one.message}`)),
					(found.next ?? []).length > 0 && [h("h3", "Its next times"), h("ol.waves", found.next.map((time) => h("li", moment(time))))]));
			} catch (error) {
				put(preview);
				if (!form.explain(error)) put(preview, problem(error));
			}
		};
		dialog({
			title: policy ? `Edit ${policy.policy_name}` : "New policy",
			action: policy ? "Save policy" : "Create policy",
			wide: true,
			body: [policy ? null : kinds, shape, offer.has("POST", "groups/{}/policies/preview") && h("div", button("Preview", { class: "small", onclick: look }, "search")), preview].filter(Boolean),
			submit: async () => {
				form.require();
				const answer = policy ? await write("PUT", at(policy), { body: body(), etag }) : await write("POST", `${path}/policies`, { body: body() });
				toast(policy ? "The policy is stored." : "The policy is made.");
				again();
				tell(answer.body);
			},
			explain: (error) => error instanceof Incomplete || form.explain(error),
		});
	}

	await read();
	return { element, begin, renew: again };
}
