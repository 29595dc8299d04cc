/** Where the members of a network stand: rings by hop in closed form, or by d3-force where they are few. */

/** Up to this many members forces decide, above it the rings. */
export const FORCED = 300;

/**
 * The members as nodes of a tree by their paths: `{user, hop, parent, children, x, y}`, the buyer first. Coordinates
 * are in hops.
 */
export function treeOf(user, members) {
  const root = { user, hop: 0, parent: null, children: [], x: 0, y: 0 };
  const known = new Map([[user, root]]);
  const nodes = [root];
  for (const member of [...members].sort((a, b) => a.hop - b.hop)) {
    if (known.has(member.user)) continue;
    const parent = known.get(member.path.at(-2)) ?? root;
    const node = { user: member.user, hop: member.hop, path: member.path, parent, children: [], x: 0, y: 0 };
    parent.children.push(node);
    known.set(member.user, node);
    nodes.push(node);
  }
  return nodes;
}

/** Put everybody on the ring of their hop, within the sector of the one they are reached through. */
export function rings(nodes) {
  const leaves = new Map();
  for (let place = nodes.length - 1; place >= 0; place -= 1) {
    const node = nodes[place];
    leaves.set(node, node.children.reduce((sum, child) => sum + leaves.get(child), 0) || 1);
  }
  nodes[0].from = 0;
  nodes[0].to = 2 * Math.PI;
  for (const node of nodes) {
    let at = node.from;
    for (const child of node.children) {
      const width = ((node.to - node.from) * leaves.get(child)) / leaves.get(node);
      [child.from, child.to] = [at, at + width];
      at += width;
      const angle = (child.from + child.to) / 2 - Math.PI / 2;
      child.x = child.hop * Math.cos(angle);
      child.y = child.hop * Math.sin(angle);
    }
  }
}

/**
 * Let forces spread the members from where the rings put them. `moved()` is called after each slice of a few
 * milliseconds, and stops everything by returning false.
 */
export async function forces(nodes, moved) {
  const d3 = await import("./vendor/d3-force.js");
  const links = nodes.slice(1).map((node) => ({ source: node.parent, target: node }));
  const room = Math.min(0.16, 2.2 / Math.sqrt(nodes.length));
  nodes[0].fx = nodes[0].fy = 0;
  const simulation = d3
    .forceSimulation(nodes)
    .force("ring", d3.forceRadial((node) => node.hop).strength(0.9))
    .force(
      "link",
      d3
        .forceLink(links)
        .distance((link) => link.target.hop - link.source.hop)
        .strength(0.12),
    )
    .force("apart", d3.forceManyBody().strength(-0.012).distanceMax(1))
    .force("collide", d3.forceCollide(room))
    .stop();
  while (simulation.alpha() > simulation.alphaMin()) {
    const until = performance.now() + 6;
    while (performance.now() < until && simulation.alpha() > simulation.alphaMin()) simulation.tick();
    if (moved() === false) return;
    await new Promise((go) => requestAnimationFrame(go));
  }
}
