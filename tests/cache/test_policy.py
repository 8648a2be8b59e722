"""Which questions a cache may answer at all."""

import subprocess
import sys

import pytest

from llmcost_plugins.cache.policy import category_of

GENERAL = [
    "How do I reset my password?",
    "How can I change my delivery address?",
    "Hi, how do I cancel my subscription?",
    "Can I return an item without a receipt?",
    "How to update my payment card",
    "Where can I see my invoices?",
    "What is your return policy?",
    "How long does delivery take?",
    "Do you ship to Norway?",
    "What are your opening hours?",
    "How many days may a return take?",
    "Which payment methods do you accept?",
    "Is the warranty transferable?",
    "Explain the difference between a debit and a credit card.",
    "What does the premium plan include?",
    "Who was Marie Curie?",
    "What is the capital of France?",
    "Translate good morning into Spanish.",
    "",
]
PERSONAL = [
    "Where is my order?",
    "What's my balance?",
    "When will my parcel arrive?",
    "Has my refund been processed?",
    "Did you receive my payment?",
    "Cancel my subscription",
    "Why was my card declined?",
    "Show me my last invoice",
    "Check my booking for Friday please",
    "Am I eligible for the discount?",
    "Do I still owe anything?",
    "How many points do I have on my account?",
    "Track my shipment 4711",
    "WHERE IS OUR DELIVERY",
    "Hello! Where is my ticket?",
]
LIVE = [
    "Is the shop open right now?",
    "What is the weather in Oslo?",
    "What's the latest version?",
    "Is the blue lamp in stock?",
    "What is the current price of gold?",
    "Are there any outages today?",
    "What time is it in Tokyo?",
    "When is the next available slot?",
    "Is the sale still on?",
]
CREATIVE = [
    "Write a poem about rain.",
    "Tell me, can you come up with a slogan for a bakery?",
    "Suggest three names for a cat",
    "Give me ideas for a birthday card",
    "Brainstorm ideas for a team event",
    "compose a haiku",
    "Invent a short story about a robot",
]
TABLE = [
    *((question, "faq") for question in GENERAL),
    *((question, "personal") for question in PERSONAL),
    *((question, "live") for question in LIVE),
    *((question, "creative") for question in CREATIVE),
]


@pytest.mark.parametrize(("question", "category"), TABLE)
def test_categories(question: str, category: str) -> None:
    assert category_of(question) == category


def test_the_table_is_long_enough() -> None:
    assert len(TABLE) >= 40


@pytest.mark.parametrize("question", [question for question, category in TABLE if category != "faq"])
def test_letters_and_lines_make_a_question_no_less_risky(question: str) -> None:
    assert category_of(question.upper()) != "faq"
    assert category_of(f"Hello,\n\n{question}\n\nThanks!") != "faq"


@pytest.mark.parametrize(
    "text",
    ["is my " * 3_000, "write a line, " * 10_000, "cancel change update " * 3_000, "my order " * 10_000],
    ids=lambda text: text[:12],
)
def test_a_long_text_does_not_hold_up_the_process(text: str) -> None:
    """A prompt may be long and without end marks (a table, a log); the rules run on the event loop."""
    code = "import sys; from llmcost_plugins.cache.policy import category_of; category_of(sys.stdin.read())"
    subprocess.run([sys.executable, "-c", code], input=text, text=True, check=True, timeout=5)


@pytest.mark.parametrize(
    "question",
    [
        "Can I get my balance?",
        "Can I have my refund now?",
        "Can I see my last three transactions?",
        "How can my order be late again?",
        "Where can I pick up my parcel 123?",
        "My order hasn't arrived yet",
        "I was charged twice",
        "Please refund me",
        "I want my money back for order 4711",
        "Has the refund for order 4711 been paid?",
        "what's the status of ticket 8812",
        "Is my flight delayed?",
        "What's my password?",
        "What's in my cart?",
        "When do I get paid?",
        "What day is it?",
        "Is Slack down?",
        "Is the app working?",
        "How much is AAPL?",
        "Exchange rate USD EUR",
        "Any tickets left for Saturday?",
        "When does the next bus leave?",
        "Tell me a joke",
        "Tell me a story",
        "Generate a password",
        "Pick a random number between 1 and 100",
    ],
)
def test_these_are_never_faq(question: str) -> None:
    assert category_of(question) != "faq"
