package main

// edits are the changes that tests must notice, named after what they remove.
var edits = []edit{
	// Finding a flow.
	{
		name: "a flow is found by a tuple in one direction", quick: true,
		old: "\t\treturn exactKey\n", new: "\t\treturn looseKey\n",
		test: "TestCollidingZones",
	},
	{
		name: "replies in the default zone are left out",
		old:  "orig.marshalIn(e, ctaTupleReply, unusedZone)", new: "orig.marshal(e, ctaTupleReply)",
		test: "TestCollidingZones",
	},
	{
		name: "original directions in the default zone are left out",
		old:  "reply.marshalIn(e, ctaTupleOrig, unusedZone)", new: "reply.marshal(e, ctaTupleOrig)",
		test: "TestCollidingZones|TestKeys",
	},
	{
		name: "tuples may be the wrong way round",
		old:  "missed && (f.ID == 0 || f.Zone != 0)", new: "missed && f.Zone != 0",
		test: "TestKeys",
	},
	{
		name: "a flow from the kernel has them the right way round",
		old:  "missed && (f.ID == 0 || f.Zone != 0)", new: "missed",
		test: "TestVanishedFlowHidesNothing|TestCollidingZones",
	},
	{
		name: "an update looks for a flow in a zone",
		old:  "o == opUpdate && f.ID != 0 && f.Zone != 0", new: "false",
		test: "TestVanishedFlowHidesNothing",
	},
	{
		name: "the ID is compared", quick: true,
		old: "f.ID == got.ID && (", new: "(",
		test: "TestZeroCountersOfSuccessor",
	},
	{
		name: "the start is compared",
		old:  "start.IsZero() || start.Equal(got.Timestamp.Start)", new: "start.IsZero() || true",
		test: "TestSuccessorsStay|TestZeroCountersOfSuccessor",
	},
	{
		name: "a master is found by either tuple",
		old:  "\t\t\terr = errHidden\n", new: "",
		test: "TestExpectsOfZones",
	},
	{
		name: "DeleteFunc compares the start",
		old:  "\ts.careful = true\n", new: "",
		test: "TestSuccessorsStay",
	},

	// Batches.
	{
		name: "a batch fits into the send buffer", quick: true,
		old: "b.enc.Len() > b.bytes && len(b.sent) > 0", new: "false",
		test: "TestBatchAllFail",
	},
	{
		name: "a batch fits into the receive buffer",
		old:  "\tb.messages = max(1, min(b.messages, n))\n", new: "\tb.messages = max(1, min(128, n))\n",
		test: "TestBatchAllFail",
	},
	{
		name: "what was refused is known when receiving fails", quick: true,
		old: "\tp.refused = true\n", new: "",
		test: "TestBatchFailsInTheMiddle",
	},
	{
		name: "what is not known has failed",
		old:  "\t\tif !p.refused {", new: "\t\tif p.refused {",
		test: "TestBatchLosesAnswers|TestBatchFailsInTheMiddle",
	},
	{
		name: "a batch attempts again",
		old:  "\tb.waiting = append(b.waiting, batchFlow{index: p.index, flow: p.flow, attempt: next, first: err})\n", new: "\t_ = next\n",
		test: "TestBatchAllFail",
	},
	{
		name: "flows with a master come last",
		old:  "if o.adds() && f.TupleMaster.filled() {", new: "if false {",
		test: "TestCreateBatchOfMasters",
	},
	{
		name: "what was selected is done soon", quick: true,
		old: "m.Last && w.pause != nil", new: "false",
		test: "TestDeleteFuncSoon",
	},
	{
		name: "flows that vanish are no errors",
		old:  "if s.err == nil && !errors.Is(e.err, fs.ErrNotExist) {", new: "if s.err == nil {",
		test: "TestDeleteFuncMeanwhile",
	},
	{
		name: "answers fit into the receive buffer",
		old:  "g.messages, g.bytes = c.sockets.request.MaxReplies()", new: "g.messages, g.bytes = 128, 1<<16",
		test: "TestGetBatch",
	},

	// Creating and updating flows.
	{
		name: "only the flow with the original tuple is updated",
		old:  ", a.op == opChange && errors.Is(err, fs.ErrNotExist):", new: ":",
		test: "TestCreateOrUpdateZones",
	},
	{
		name: "the error of creating counts",
		old:  "\t\treturn first\n", new: "\t\treturn err\n",
		test: "TestCreateOrUpdateZones",
	},
	{
		name: "flags of NAT are not updated",
		old:  "f.Status.Value &^ (StatusNATMask | StatusNATDoneMask)", new: "f.Status.Value",
		test: "TestCreateOrUpdateTranslated",
	},
	{
		name: "a new flow needs both tuples",
		old:  "!f.TupleOrig.filled() || !reply.filled()", new: "false",
		test: "TestBadInput",
	},

	// Settings.
	{
		name: "settings are those of the Conn's namespace",
		old:  "c.sockets.request.InNamespace(s.readSysctls)", new: "s.readSysctls()",
		test: "TestSettings",
	},
	{
		name: "a function runs in the namespace", dir: "internal/nfnl",
		old: "if isFile(ns, here) {", new: "if isFile(ns, here) || true {",
		test: "TestInNamespace",
	},

	// Dumps.
	{
		name: "what is kept is not used again", quick: true,
		old: "if !found || !w.keep {", new: "if true {",
		test: "TestFlowsAreKept",
	},
	{
		name: "a dump makes room for the table",
		old:  "const few, part = 1024, 32", new: "const few, part = 1 << 30, 32",
		test: "TestDumpFilterSize",
	},
	{
		name: "little room is kept for what did not come",
		old:  "if cap(d.flows)/4 > len(d.flows) {", new: "if false {",
		test: "TestDumpFilterSize",
	},
	{
		name: "each family is flushed where all cannot be",
		old:  "family != netfilter.ProtoUnspec || !nfnl.IsInvalid(err)", new: "true",
		test: "TestFlushFamilies",
	},

	{
		name: "what the kernel does not filter is filtered",
		old:  "match := *w.filter != Filter{} && ", new: "match := false && ",
		test: "TestDumpFilterPrefix",
	},

	// Attributes.
	{
		name: "an attribute without anything",
		old:  "\tctaTimestampEvent // 6.14\n", new: "\tctaTimestampEvent // 6.14\n\tctaNew\n",
		test: "TestAttributeNames",
	},
	{
		name: "an attribute without decoding", quick: true,
		old: "\t\tcase ctaTupleZone:\n\t\t\tt.Zone = d.Uint16(v)\n", new: "",
		test: "TestAttributes",
	},
	{
		name: "an attribute without encoding",
		old:  "\te.Uint32(ctaSynProxyTSOff, p.TSOff)\n", new: "",
		test: "TestAttributes",
	},
	{
		name: "an attribute without JSON",
		old:  "\t\tSecurityContext: f.SecurityContext,\n", new: "",
		test: "TestAttributes",
	},

	// Exchanges with the kernel.
	{
		name: "the buffer of an event grows", dir: "internal/nfnl",
		old: "e.setBuffer(i, make([]byte, 2*size))", new: "e.setBuffer(i, make([]byte, size))",
		test: "TestReceiverGrows",
	},
	{
		name: "late replies are left out", dir: "internal/nfnl",
		old: "if m.sequence()-x.first >= x.count {", new: "if false {",
		test: "TestReplies|TestBatch|TestDoReplies",
	},
	{
		name: "an interrupted dump is told", dir: "internal/nfnl",
		old: "x.interrupted || m.flags()&netlink.DumpInterrupted != 0", new: "false",
		test: "TestReplies",
	},
	{
		name: "replies go to their requests", dir: "internal/nfnl",
		old: "reply(int(m.Sequence-x.first), m)", new: "reply(0, m)",
		test: "TestDoReplies",
	},
}
