------------------------------- MODULE Lethe -------------------------------
(* One upload from its first byte to its receipt, while processes die or stand still, stores are lost or silent, and    *)
(* messages come late. README.md says which word here is which line of code, and what is left out.                      *)
EXTENDS Naturals, FiniteSets

CONSTANTS Workers,       \* the processes that may open the upload
          Deadline,      \* ticks from admission on
          Lease, Grace,  \* ticks; a guard kills one tick before its lease ends
          MaxReturns,    \* how often a job may go back to the queue
          MaxFaults,
          Broken         \* the rule that is left out; "nothing" in the model of what we do

Broker == "broker"
Nobody == "nobody"
Processes == Workers \cup {Broker}
Copies == Processes \cup {"key", "blob"}

VARIABLES
    state,
    valid,     \* who has the job's fence
    stale,     \* who had it, and still works: each believes that it has it
    memory,    \* who has plaintext or the key in memory
    dead,      \* who has ended, and has a row yet
    open,      \* the custody rows that are open
    lease,     \* what is left of a holder's lease, with the grace time, by the database's clock
    timeLeft,  \* ticks until Lease after the deadline
    bell,      \* whether Redis tells workers of the job
    key,       \* at the keyholder: "never", "held" or "shredded" (a tombstone)
    isSame,    \* whether the keyholder is still the incarnation that the custody row names
    put,       \* the broker's PUT: "no", "sent", "kept"
    blob,      \* whether ciphertext lies in the blob store
    seen,      \* what the settler has seen to be gone; "told": SHRED was answered
    returns, faults

job == <<state, valid, stale>>
process == <<memory, dead>>
keyholder == <<key, isSame, put>>
vars == <<job, process, open, lease, timeLeft, bell, keyholder, blob, seen, returns, faults>>

Ending == state \in {"settling", "discarding"}
Over == state \in {"final", "discarded"}
Admitted == state \in {"queued", "running", "settling", "final"}
IsLate == timeLeft <= Lease
Works(p) == p = valid \/ p \in stale
IsEnded(p) == lease[p] = 0
Recoverable == memory # {} \/ (blob /\ key = "held")

Fresh(p) == [lease EXCEPT ![p] = Lease + Grace]
\* Whoever had the fence has it no more, and need not know.
NewFence(p) == valid' = p /\ stale' = (IF valid = Nobody THEN stale ELSE stale \cup {valid})
Stops(p) == valid' = (IF valid = p THEN Nobody ELSE valid) /\ stale' = stale \ {p}
Fault == faults < MaxFaults /\ faults' = faults + 1

Init ==
    /\ state = "receiving" /\ valid = Broker /\ stale = {}
    /\ memory = {Broker} /\ dead = {}
    /\ open = {"key", "blob", Broker}  \* committed before the first byte is kept
    /\ lease = [p \in Processes |-> IF p = Broker THEN Lease + Grace ELSE 0]
    /\ timeLeft = Deadline + Lease /\ bell = FALSE
    /\ key = "never" /\ isSame = TRUE /\ put = "no" /\ blob = FALSE
    /\ seen = {} /\ returns = 0 /\ faults = 0

----------------------------------------------------------------------------
(* Intake; the broker may not know yet that its upload was cut *)

Store ==
    /\ Broker \in memory /\ ~blob
    /\ blob' = TRUE
    /\ UNCHANGED <<job, process, open, lease, timeLeft, bell, keyholder, seen, returns, faults>>

Put ==
    /\ Broker \in memory /\ put = "no" /\ (isSame \/ Broken = "any incarnation")
    /\ put' = "sent"
    /\ UNCHANGED <<job, process, open, lease, timeLeft, bell, key, isSame, blob, seen, returns, faults>>

\* Whenever it arrives, whoever has given up waiting for the answer.
PutArrives ==
    /\ put = "sent"
    /\ put' = "kept" /\ key' = (IF key = "never" THEN "held" ELSE key)
    /\ UNCHANGED <<job, process, open, lease, timeLeft, bell, isSame, blob, seen, returns, faults>>

Admit ==
    /\ state = "receiving" /\ valid = Broker /\ blob /\ put = "kept"
    /\ state' = "queued" /\ Stops(Broker) /\ memory' = memory \ {Broker} /\ open' = open \ {Broker}
    /\ timeLeft' = Deadline + Lease /\ bell' = TRUE
    /\ UNCHANGED <<dead, lease, keyholder, blob, seen, returns, faults>>

\* Broken off, refused, too slow, superseded, or its broker died.
Cut ==
    /\ state = "receiving"
    /\ state' = "discarding" /\ NewFence(Nobody)
    /\ UNCHANGED <<process, open, lease, timeLeft, bell, keyholder, blob, seen, returns, faults>>

----------------------------------------------------------------------------
(* Work *)

Ring ==
    /\ state = "queued" /\ ~bell
    /\ bell' = TRUE
    /\ UNCHANGED <<job, process, open, lease, timeLeft, keyholder, blob, seen, returns, faults>>

\* The guard is armed before.
Claim(w) ==
    /\ state = "queued" /\ bell /\ ~IsLate /\ ~Works(w) /\ w \notin open
    /\ state' = "running" /\ NewFence(w) /\ bell' = FALSE
    /\ open' = open \cup {w} /\ lease' = Fresh(w)
    /\ UNCHANGED <<process, timeLeft, keyholder, blob, seen, returns, faults>>

\* Also one who has been asleep, and has the fence no more.
Open(w) ==
    /\ Works(w) /\ w \notin memory /\ key = "held"
    /\ memory' = memory \cup {w}
    /\ UNCHANGED <<job, dead, open, lease, timeLeft, bell, keyholder, blob, seen, returns, faults>>

Settle == state' = "settling" /\ NewFence(Nobody)

\* Done, failed, or its key is lost: the job is never run without it.
Decide(w) ==
    /\ state = "running" /\ valid = w /\ (w \in memory \/ key # "held")
    /\ Settle
    /\ UNCHANGED <<process, open, lease, timeLeft, bell, keyholder, blob, seen, returns, faults>>

Retry(w) ==
    /\ state = "running" /\ valid = w /\ returns < MaxReturns
    /\ state' = "queued" /\ Stops(w) /\ memory' = memory \ {w} /\ open' = open \ {w}
    /\ bell' = TRUE /\ returns' = returns + 1
    /\ UNCHANGED <<dead, lease, timeLeft, keyholder, blob, seen, faults>>

Cancel ==
    /\ state \in {"queued", "running"}
    /\ Settle
    /\ UNCHANGED <<process, open, lease, timeLeft, bell, keyholder, blob, seen, returns, faults>>

Expire == IsLate /\ Cancel /\ Broken # "no deadline"

\* By its row alone: its owner has been killed by then.
Rescue(w) ==
    /\ state = "running" /\ w \in open
    /\ IsEnded(w) \/ (Broken = "rescue before the lease's end" /\ lease[w] < Lease + Grace)
    /\ IF returns < MaxReturns THEN state' = "queued" /\ NewFence(Nobody) ELSE Settle
    /\ returns' = (IF returns < MaxReturns THEN returns + 1 ELSE returns)
    /\ open' = open \ {w} /\ dead' = dead \ {w} /\ bell' = FALSE
    /\ UNCHANGED <<memory, lease, timeLeft, keyholder, blob, seen, faults>>

----------------------------------------------------------------------------
(* Processes *)

\* Past the job's deadline a loop that still turns has let go, and one that stands still renews nothing.
Renew(p) ==
    /\ p \in open \ dead /\ lease[p] > Grace /\ (Works(p) => ~IsLate)
    /\ lease' = Fresh(p)
    /\ UNCHANGED <<job, process, open, timeLeft, bell, keyholder, blob, seen, returns, faults>>

\* Heard from Redis, with a renewal, or by its own clock: the buffers first, the row after that.
LetGo(p) ==
    /\ p \in stale \/ (p = valid /\ IsLate)
    /\ Stops(p) /\ memory' = memory \ {p}
    /\ UNCHANGED <<state, dead, open, lease, timeLeft, bell, keyholder, blob, seen, returns, faults>>

Release(p) ==
    /\ p \in open \ dead /\ ~Works(p)
    /\ open' = open \ {p}
    /\ UNCHANGED <<job, process, lease, timeLeft, bell, keyholder, blob, seen, returns, faults>>

Die(p) == Works(p) /\ Stops(p) /\ memory' = memory \ {p} /\ dead' = (IF p \in open THEN dead \cup {p} ELSE dead)

\* Before the next tick; earlier where the answer to the last renewal was lost.
MustDie(p) == Works(p) /\ lease[p] <= Grace + 1 /\ Broken # "no kill at the lease's end"

Kill(p) ==
    /\ MustDie(p) /\ Die(p)
    /\ UNCHANGED <<state, open, lease, timeLeft, bell, keyholder, blob, seen, returns, faults>>

----------------------------------------------------------------------------
(* Settle, and discard: any process, again and again, until it is done *)

Shred ==
    /\ Ending /\ seen = {}
    /\ seen' = {"told"}
    /\ \/ /\ key' = (IF Broken = "no tombstone" THEN "never" ELSE "shredded")
          /\ UNCHANGED faults
       \/ Fault /\ key = "held" /\ UNCHANGED key  \* answered, and not done
    /\ UNCHANGED <<job, process, open, lease, timeLeft, bell, isSame, put, blob, returns>>

Look ==
    /\ Ending /\ seen = {"told"}
    /\ seen' = (IF key # "held" \/ Broken = "believe SHRED without HAS" THEN {"key"} ELSE {})
    /\ UNCHANGED <<job, process, open, lease, timeLeft, bell, keyholder, blob, returns, faults>>

HolderEnded(p) ==
    /\ Ending /\ "key" \in seen /\ p \in open \ seen /\ IsEnded(p)
    /\ seen' = seen \cup {p}
    /\ UNCHANGED <<job, process, open, lease, timeLeft, bell, keyholder, blob, returns, faults>>

\* Once nobody can write it any more. With the key gone, ciphertext that a silent store still has is `unreadable`.
Delete ==
    /\ Ending /\ "key" \in seen /\ "blob" \notin seen /\ open \cap Processes \subseteq seen
    /\ seen' = seen \cup {"blob"}
    /\ (blob' = FALSE /\ UNCHANGED faults) \/ (Fault /\ UNCHANGED blob)
    /\ UNCHANGED <<job, process, open, lease, timeLeft, bell, keyholder, returns>>

Finish ==
    /\ Ending
    /\ open \subseteq seen \/ (Broken = "final before shred" /\ state = "settling")
    /\ state' = (IF state = "settling" THEN "final" ELSE "discarded")
    /\ open' = {} /\ dead' = {} /\ seen' = {}
    /\ UNCHANGED <<valid, stale, memory, lease, timeLeft, bell, keyholder, blob, returns, faults>>

----------------------------------------------------------------------------
(* Faults, and time *)

Crash(p) ==
    /\ Fault /\ Die(p)
    /\ UNCHANGED <<state, open, lease, timeLeft, bell, keyholder, blob, seen, returns>>

\* Keys and tombstones are gone, and connections with what was under way on them.
LoseKeyholder ==
    /\ Fault
    /\ key' = "never" /\ isSame' = FALSE /\ put' = (IF put = "sent" THEN "no" ELSE put)
    /\ UNCHANGED <<job, process, open, lease, timeLeft, bell, blob, seen, returns>>

LoseRedis ==
    /\ Fault /\ bell
    /\ bell' = FALSE
    /\ UNCHANGED <<job, process, open, lease, timeLeft, keyholder, blob, seen, returns>>

LoseSettler ==
    /\ Fault /\ seen # {}
    /\ seen' = {}
    /\ UNCHANGED <<job, process, open, lease, timeLeft, bell, keyholder, blob, returns>>

\* A key's time began before the job's: it ends at the deadline, or a little earlier.
MustEnd == Admitted /\ key = "held" /\ IsLate /\ Broken # "keys without an end"

KeyEnds ==
    /\ MustEnd
    /\ key' = "never"
    /\ UNCHANGED <<job, process, open, lease, timeLeft, bell, isSame, put, blob, seen, returns, faults>>

Less(n) == IF n = 0 THEN 0 ELSE n - 1

Tick ==
    /\ ~MustEnd /\ \A p \in Processes : ~MustDie(p)
    /\ lease' = [p \in Processes |-> IF p \in open \/ Works(p) THEN Less(lease[p]) ELSE 0]
    /\ timeLeft' = Less(timeLeft)
    /\ UNCHANGED <<job, process, open, bell, keyholder, blob, seen, returns, faults>>

Next ==
    \/ Store \/ Put \/ PutArrives \/ Admit \/ Cut \/ Ring \/ Cancel
    \/ Shred \/ Look \/ Delete \/ Finish
    \/ LoseKeyholder \/ LoseRedis \/ LoseSettler \/ KeyEnds \/ Tick
    \/ \E w \in Workers : Claim(w) \/ Open(w) \/ Decide(w) \/ Retry(w) \/ Rescue(w)
    \/ \E p \in Processes : Renew(p) \/ LetGo(p) \/ Release(p) \/ Kill(p) \/ HolderEnded(p) \/ Crash(p)

\* Nobody has to renew, to claim, to ring, to let go or to cancel: a process may stand still for ever.
Fairness ==
    /\ WF_vars(Tick) /\ WF_vars(KeyEnds) /\ WF_vars(Expire)
    /\ WF_vars(Shred) /\ WF_vars(Look) /\ WF_vars(Delete) /\ WF_vars(Finish)
    /\ \A p \in Processes : WF_vars(Kill(p)) /\ WF_vars(Release(p)) /\ WF_vars(HolderEnded(p))

Spec == Init /\ [][Next]_vars /\ Fairness

----------------------------------------------------------------------------
(* The law *)

TypeOK ==
    /\ state \in {"receiving", "discarding", "discarded", "queued", "running", "settling", "final"}
    /\ valid \in Processes \cup {Nobody} /\ valid \notin stale
    /\ open \subseteq Copies /\ seen \subseteq Copies \cup {"told"}
    /\ key \in {"never", "held", "shredded"} /\ put \in {"no", "sent", "kept"}

\* I1: what is over has left nothing that opens it, and nobody who had it open.
NoResidue == Over => key # "held" /\ memory = {}

\* I2: a lease after the deadline nothing can be recovered, whether or not anybody settled.
HardDeadline == Admitted /\ timeLeft = 0 => ~Recoverable

\* I8: one worker at most has the upload open, and whoever has it open stands in a row.
SingleCustody == Cardinality(memory \cap Workers) <= 1
EveryCopyHasItsRow == memory \subseteq open /\ (~Over /\ key = "held" => "key" \in open)

\* L1
EveryJobEnds == (state = "queued") ~> (state = "final")
EveryUploadEnds == (state = "discarding") ~> (state = "discarded")
=============================================================================
