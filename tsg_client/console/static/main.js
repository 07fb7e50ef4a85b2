// The frame of the pages: which page is shown, the theme, whether the service can be reached.

import { connection, get, Offer, passes, rest } from "./api.js";
import { h, put, say } from "./dom.js";
import { tick } from "./format.js";
import { icon, problem } from "./ui.js";

const main = document.getElementById("main");

// Address of a page -> its module, loaded when it is shown first, and its place in the navigation if it has one.
const PAGES = [
	{ at: /^\/groups$/, load: () => import("./groups.js"), nav: ["Groups", "#/groups"], needs: ["GET", "groups"] },
	{ at: /^\/groups\/([0-9a-f-]{36})$/, load: () => import("./group.js"), under: "#/groups" },
	{ at: /^\/templates$/, load: () => import("./templates.js"), nav: ["Templates", "#/templates"], needs: ["GET", "templates"] },
	{ at: /^\/notifications$/, load: () => import("./notifications.js"), nav: ["Notifications", "#/notifications"], needs: ["GET", "notifications"] },
];

let leaving = new AbortController();
let offer;
let isFirst = true;

const place = () => decodeURI(location.hash.slice(1)).split("?")[0] || "/groups";

async function show() {
	leaving.abort();
	leaving = new AbortController();
	const { signal } = leaving;
	const path = place();
	const page = PAGES.find((one) => one.at.test(path) && (!one.needs || offer.has(...one.needs)));
	const under = page?.under ?? page?.nav?.[1];
	for (const link of document.querySelectorAll("#nav a")) {
		if (link.getAttribute("href") === under) link.setAttribute("aria-current", "page");
		else link.removeAttribute("aria-current");
	}
	if (!page) {
		put(main, h("div.empty", h("h1", "There is no such page"), h("p", h("a", { href: "#/groups" }, "All groups"))));
		return;
	}
	for (let failures = 1; ; failures += 1) {
		try {
			const module = await page.load();
			if (signal.aborted) return;
			scrollTo(0, 0);
			const root = h("div.page", h("p.quiet.first", "Loading …"));
			put(main, root);
			await module.show(root, { offer, signal, argument: page.at.exec(path)[1], title });
			// A screen reader is told where it is now; at first the browser says so itself.
			if (!isFirst) main.focus({ preventScroll: true });
			isFirst = false;
			return;
		} catch (error) {
			if (signal.aborted) return;
			put(main, problem(error));
			if (!passes(error)) return;
			await rest(failures, signal);
		}
	}
}

function title(text) {
	document.title = `${text} – Triton Service Groups`;
}

const THEMES = [["auto", "Theme: as the system's"], ["light", "Theme: light"], ["dark", "Theme: dark"]];
const SIGNS = { auto: "auto", light: "sun", dark: "moon" };

function theme() {
	const toggle = document.getElementById("theme");
	let chosen = localStorage.getItem("theme") ?? "auto";
	const apply = () => {
		document.documentElement.dataset.theme = chosen;
		const [, label] = THEMES.find(([name]) => name === chosen);
		toggle.setAttribute("aria-label", label);
		toggle.title = label;
		put(toggle, icon(SIGNS[chosen]));
	};
	toggle.addEventListener("click", () => {
		chosen = THEMES[(THEMES.findIndex(([name]) => name === chosen) + 1) % THEMES.length][0];
		localStorage.setItem("theme", chosen);
		apply();
	});
	if (!(chosen in SIGNS)) chosen = "auto";
	apply();
}

function watchConnection() {
	const banner = document.getElementById("lost");
	connection.addEventListener("lost", (event) => {
		put(banner, icon("alert"), h("span", `${event.detail} What you see is of ${new Date().toLocaleTimeString()}. Trying again …`));
		banner.hidden = false;
	});
	connection.addEventListener("back", () => {
		banner.hidden = true;
	});
}

async function begin() {
	theme();
	watchConnection();
	setInterval(tick, 1000);
	document.querySelector(".skip").addEventListener("click", (event) => {
		event.preventDefault();
		main.focus();
	});
	// While the description comes; what fails here fails again when it is shown.
	PAGES.find((page) => page.at.test(place()))?.load().catch(() => {});
	for (let failures = 1; !offer; failures += 1) {
		try {
			offer = await Offer.load();
		} catch (error) {
			put(main, problem(error));
			if (!passes(error)) return;
			await rest(failures, leaving.signal);
		}
	}
	put(document.getElementById("nav"), PAGES.filter((page) => page.nav && offer.has(...page.needs)).map(({ nav: [text, href] }) => h("a", { href }, text)));
	addEventListener("hashchange", show);
	show();
	try {
		const { account, service } = (await get("/console/about.json")).body;
		const host = service.replace(/^https?:\/\//, "");
		say(document.getElementById("who"), host ? `${account} @ ${host}` : `${account} (development)`);
	} catch {
		// Whose page it is can be done without.
	}
}

begin();
