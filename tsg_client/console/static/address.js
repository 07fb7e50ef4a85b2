// What a page shows, kept in its address, as in #/groups?show=bad&sort=state.

const path = () => location.hash.split("?")[0] || "#/groups";

export const asked = () => new URLSearchParams(location.hash.split("?")[1] ?? "");

/** A function that writes what the page shows into its address; what is empty goes out of it. */
export function keeper() {
	const own = path();
	return (values) => {
		// A page that is being left has no say in the next one's address.
		if (path() !== own) return;
		const query = asked();
		for (const [name, value] of Object.entries(values)) {
			if (value) query.set(name, value);
			else query.delete(name);
		}
		const wanted = query.size ? `${own}?${query}` : own;
		if (wanted !== location.hash) history.replaceState(null, "", wanted);
	};
}
