"""Several architectures on one text under equal tokens, rates that were tried and one size: `run` and what it found.

folder/plan.json         what is compared, and how many steps the budget allows: fixed by the first start
       results.jsonl     a line for every finished job; a job that stands there is not done again
       runs/             the runs of `runnel.train.fit` that are not finished
       report.html       everything on one page, pictures included
       report.json       the same as numbers
"""

from runnel.compare.entrants import Entrant, parse_entrants
from runnel.compare.jobs import run_jobs
from runnel.compare.plan import Plan, begin, resume
from runnel.compare.summary import summarise, write_report

__all__ = ["Entrant", "Plan", "begin", "parse_entrants", "resume", "run_jobs", "summarise", "write_report"]
