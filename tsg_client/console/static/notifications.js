// Notifications: to which addresses activities are told, and what became of each delivery.

import { all, forever, get, write } from "./api.js";
import { each, h, put, renew, say } from "./dom.js";
import { Form, Incomplete } from "./form.js";
import { ago, count, timeElement } from "./format.js";
import { button, confirm, dialog, empty, listPage, menu, pill, problem, table, toast } from "./ui.js";
import { phrase } from "./words.js";

const ONE = "notifications/{}";
const PAUSE = 15000;

export async function show(root, { offer, signal, title }) {
	title("Notifications");
	const body = h("tbody");
	const shown = h("div.card", table(["Address", "Groups", "Kinds", "State", "Created", ""], body));
	let groups = new Map();
	const { total, place, create } = listPage(root, "Notifications", "New notification", edit);

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
			renew(row, JSON.stringify(one), () => [h("td.mono", one.url), h("td.small", (one.groups ?? []).map((id) => (id === "*" ? "All" : groups.get(id) ?? id)).join(", ")), h("td.small.mono", (one.kinds ?? []).join(", ")),
				h("td", one.enabled ? pill("On", "good") : pill("Off", "idle"), h("div.quiet.small", one.disabled_why)), h("td.small", one.created_at && timeElement(one.created_at)),
				h("td", menu(`Actions for ${one.url}`, [
					offer.has("GET", `${ONE}/deliveries`) && ["Deliveries", "search", () => deliveries(one)],
					offer.has("PUT", ONE) && ["Edit", "edit", () => edit(one)],
					offer.has("POST", `${ONE}/rotate`) && ["New secret", "swap", () => confirm("Make a new secret", "The old one holds for a while beside it.", "Make a new one", async () => reveal((await write("POST", `notifications/${one.id}/rotate`)).body))],
					offer.has("DELETE", ONE) && ["Delete", "trash", () => confirm("Delete the notification", one.url, "Delete", async () => {
						await write("DELETE", `notifications/${one.id}`);
						again();
					}), "bad"],
				].filter(Boolean)))]);
		});
		return PAUSE;
	}
	const again = () => read().catch(() => {});

	function edit(one) {
		const form = new Form(offer.body(one ? "PUT" : "POST", one ? ONE : "notifications"), { values: one ?? {}, labels: { url: "Address" } });
		dialog({
			title: one ? "Edit notification" : "New notification", action: one ? "Save" : "Create notification", body: [form.element],
			submit: async () => {
				form.require();
				const { body: made } = await write(one ? "PUT" : "POST", one ? `notifications/${one.id}` : "notifications", { body: form.read() });
				again();
				reveal(made);
			},
			explain: (error) => error instanceof Incomplete || form.explain(error),
		});
	}

	function reveal(made) {
		if (!made?.secret) return;
		const field = h("input", { readOnly: true, value: made.secret, "aria-label": "Secret", class: "mono", onfocus: () => field.select() });
		dialog({ title: "The secret of this notification", body: [h("p", "It is shown this once. Deliveries are signed with it, as Standard Webhooks says."), field] });
	}

	async function deliveries(one) {
		const list = h("tbody");
		dialog({ title: "Deliveries", wide: true, body: [h("p.quiet.mono", one.url), table(["When", "What", "State", ""], list, "small")] });
		const fill = async () => {
			const { body: found } = await get(`notifications/${one.id}/deliveries?limit=100`);
			put(list, found.length ? found.map((delivery) => h("tr", h("td", ago(delivery.at)), h("td.mono", delivery.kind),
				h("td", phrase(delivery.state), " ", h("span.quiet", delivery.last_error)),
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
