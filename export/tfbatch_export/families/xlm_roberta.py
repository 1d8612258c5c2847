"""XLM-RoBERTa (Conneau et al., 2019): RoBERTa in a hundred languages."""

from tfbatch_export.families._text import text_tasks
from tfbatch_export.families.roberta import Roberta

TASKS = text_tasks(Roberta())
