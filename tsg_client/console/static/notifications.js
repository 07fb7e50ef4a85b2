// Notifications: to which addresses activities are told, and what became of each delivery.

import { all, forever, get, write } from "./api.js";
import { each, h, put, renew, say } from "./dom.js";
import { Form, Incomplete } from "./form.js";
import { count, plural, short, timeElement, until } from "./format.js";
import { button, confirm, dialog, empty, listPage, menu, pill, problem, reveal, table, toast } from "./ui.js";
import { kind, phrase } from "./words.js";

const ONE = "notifications/{}";
const PAUSE = 15000;
// What became of a delivery -> its tone.
const STATES = { waiting: "busy", delivered: "good", dead: "bad" };

export async function show(root, { offer, signal, title }) {
	title("Notifications");
	const body = h("tbody");
	const shown = h("div.card", table(["Address", "Groups", "Kinds", "State", "Created", ""], body, "of-page"));
	let groups = new Map();
	const { total, place, create } = listPage(root, "Notifications", "New notification", offer.has("POST", "notifications") && (() => edit()));

	async function read() {
		const [found, named] = await Promise.all([all("notifications", { signal }), groups.size ? null : all("groups", { signal })]);
		if (named) groups = new Map(named.map((one) => [one.id, one.group_name]));
		say(total, count(found.length));
		if (!found.length) {
			put(place, empty("No notifications", "A notification tells an address of yours, signed, what happens to your groups.", create()));
			return PAUSE;
		}
		if (shown.parentNode !== place) put(place, shown);
		each(body, found, (one) => one.id, () => h("tr"), (row, one) => {
			renew(row, JSON.stringify(one), () => [h("td.mono", one.url), h("td.small", (one.groups ?? []).map((id) => (id === "*" ? "All" : groups.get(id) ?? id)).join(", ")), h("td.small", (one.kinds ?? []).map((word) => (word === "*" ? "All" : word)).join(", ")),
				h("td", !one.enabled ? pill("Off", "idle") : one.failures ? pill("Failing", "bad") : pill("On", "good"), h("div.quiet.small", one.disabled_why ?? (one.failures > 0 && `${plural(one.failures, "failure")} in a row`))), h("td.small", one.created_at && timeElement(one.created_at)),
				h("td", menu(`Actions for ${one.url}`, [
					offer.has("GET", `${ONE}/deliveries`) && ["Deliveries", "search", () => deliveries(one)],
					offer.has("PUT", ONE) && ["Edit", "edit", () => get(`notifications/${one.id}`).then(({ body: now, etag }) => edit(now, etag)).catch((error) => toast(error.message, "bad"))],
					offer.has("POST", `${ONE}/rotate`) && ["New secret", "swap", () => confirm("Make a new secret", "The old one holds for a while beside it.", "Make a new one", async () => tell((await write("POST", `notifications/${one.id}/rotate`)).body))],
					offer.has("DELETE", ONE) && ["Delete", "trash", () => confirm("Delete the notification", one.url, "Delete", async () => {
						await write("DELETE", `notifications/${one.id}`);
						again();
					}), "bad"],
				].filter(Boolean)))]);
		});
		return PAUSE;
	}
	const again = () => read().catch(() => {});

	/** A form for a new notification, or a change of one as it was read, by its ETag. */
	function edit(one, etag) {
		const form = new Form(offer.body(one ? "PUT" : "POST", one ? ONE : "notifications"), { values: one ?? {}, labels: { url: "Address" } });
		dialog({
			title: one ? "Edit notification" : "New notification", action: one ? "Save" : "Create notification", body: [form.element],
			submit: async () => {
				form.require();
				const { body: made } = await write(one ? "PUT" : "POST", one ? `notifications/${one.id}` : "notifications", { body: form.read(), etag });
				again();
				tell(made);
			},
			explain: (error) => error instanceof Incomplete || form.explain(error),
		});
	}

	function tell(made) {
		if (made?.secret) reveal("The secret of this notification", "It is shown this once. Deliveries are signed with it, as Standard Webhooks says.", "Secret", made.secret);
	}

	async function deliveries(one) {
		const list = h("tbody");
		dialog({ title: "Deliveries", wide: true, body: [h("p.quiet.mono", one.url), table(["When", "What", "State", ""], list, "small")] });
		const fill = async () => {
			const { body: found } = await get(`notifications/${one.id}/deliveries?limit=100`);
			put(list, found.length ? found.map((delivery) => h("tr", h("td", timeElement(delivery.at)), h("td", kind(delivery.kind)[0], h("div.quiet", groups.get(delivery.group_id) ?? short(delivery.group_id))),
				h("td", pill(delivery.state === "dead" ? "Given up" : phrase(delivery.state), STATES[delivery.state] ?? "wait"), h("span.quiet", ` ${plural(delivery.attempts, "attempt")}`, delivery.state === "waiting" && delivery.attempts > 0 && [", next ", timeElement(delivery.due_at, until)]), h("div.quiet", delivery.last_error)),
				h("td", offer.has("POST", `${ONE}/deliveries/{}/replay`) && button("Send again", { class: "small", onclick: async () => {
					try {
						await write("POST", `notifications/${one.id}/deliveries/${delivery.id}/replay`);
						toast("It is sent again.");
						await fill();
					} catch (error) {
						toast(error.message, "bad");
					}
				} })))) : h("tr", h("td.quiet", "Nothing was sent yet.")));
		};
		fill().catch((error) => toast(error.message, "bad"));
	}

	forever(read, signal, (error) => put(place, problem(error)));
}
