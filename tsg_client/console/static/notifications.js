// Notifications: to which addresses activities are told, and what became of each delivery.

import { editDialog, makeDialog } from "./act.js";
import { all, bodyOf, forever, get, write } from "./api.js";
import { h, put } from "./dom.js";
import { Form } from "./form.js";
import { plural, short, timeElement, until } from "./format.js";
import { button, confirm, failed, menu, pill, problem, reveal, tableDialog, tablePage, toast } from "./ui.js";
import { kind, phrase } from "./words.js";

const PAUSE = 15000;
// What became of a delivery -> its tone.
const STATES = { waiting: "busy", delivered: "good", dead: "bad" };

export async function show(root, { signal, title }) {
	title("Notifications");
	let groups = new Map();
	const page = tablePage(root, "Notifications", { action: "New notification", make, heads: ["Address", "Groups", "Kinds", "State", "Created", ""],
		none: ["No notifications", "A notification tells an address of yours, signed, what happens to your groups."] });

	async function read() {
		const [found, named] = await Promise.all([all("notifications", { signal }), groups.size ? null : all("groups", { signal })]);
		if (named) groups = new Map(named.map((one) => [one.id, one.group_name]));
		page.draw(found, JSON.stringify, row);
		return PAUSE;
	}

	const row = (one) => [
		h("td.mono", one.url),
		h("td.small", one.groups.map((id) => (id === "*" ? "All" : groups.get(id) ?? id)).join(", ")),
		h("td.small", one.kinds.map((word) => (word === "*" ? "All" : word)).join(", ")),
		h("td", !one.enabled ? pill("Off", "idle") : one.failures ? pill("Failing", "bad") : pill("On", "good"), h("div.quiet.small", one.disabled_why ?? (one.failures > 0 && `${plural(one.failures, "failure")} in a row`))),
		h("td.small", timeElement(one.created_at)),
		h("td", menu(`Actions for ${one.url}`, [
			["Deliveries", () => deliveries(one)],
			["Edit", () => edit(one).catch(failed)],
			["New secret", () => confirm("Make a new secret", "The old one holds for a while beside it.", "Make a new one", async () => tell((await write("POST", `notifications/${one.id}/rotate`)).body))],
			["Delete", () => confirm("Delete the notification", one.url, "Delete", async () => {
				await write("DELETE", `notifications/${one.id}`);
				again();
			}), "bad"],
		])),
	];

	const formOf = (one) => new Form(bodyOf("POST", "notifications"), { values: one, labels: { url: "Address" },
		hints: { groups: "Ids of groups; * is all of them", kinds: "Such as rollout.*, group.*, instance.*, policy.* or TSG_INSTANCE_LOST; * is all of them" } });

	function make() {
		makeDialog({ title: "New notification", action: "Create notification", form: formOf(), path: "notifications", done: tell });
	}

	async function edit({ id }) {
		const path = `notifications/${id}`;
		const { body: thing, etag } = await get(path);
		editDialog({ path, thing, etag, what: "The notification", aside: "a new secret, or the same once more", title: "Edit notification", action: "Save", form: formOf(thing), done: tell });
	}

	function tell(made) {
		again();
		if (made?.secret) reveal("The secret of this notification", "It is shown this once. Deliveries are signed with it, as Standard Webhooks says.", "Secret", made.secret);
	}

	function deliveries(one) {
		const path = `notifications/${one.id}/deliveries`;
		const send = async ({ id }) => {
			await write("POST", `${path}/${id}/replay`);
			toast("It is sent again.");
			await fill();
		};
		const fill = tableDialog({ title: "Deliveries", before: h("p.quiet.mono", one.url), heads: ["When", "What", "State", ""], nothing: "Nothing was sent yet.", read: () => get(`${path}?limit=100`), row: (sent) => [
			h("td", timeElement(sent.at)),
			h("td", kind(sent.kind)[0], h("div.quiet", groups.get(sent.group_id) ?? short(sent.group_id))),
			h("td", pill(sent.state === "dead" ? "Given up" : phrase(sent.state), STATES[sent.state] ?? "wait"), h("span.quiet", ` ${plural(sent.attempts, "attempt")}`, sent.state === "waiting" && sent.attempts > 0 && [", next ", timeElement(sent.due_at, until)]), h("div.quiet", sent.last_error)),
			h("td", button("Send again", { class: "small", onclick: () => send(sent).catch(failed) })),
		] });
	}

	const again = forever(read, signal, (error) => put(page.place, problem(error)));
}
