"""What the vetoes know of English: its small words, numbers, units, dates, opposites and plain synonyms.

General knowledge of the language, written down once; nothing here comes from a test set.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


@lru_cache(maxsize=16384)
def stem(word: str) -> str:
    """Return a word without the endings of number and tense, in American spelling; a key, not always a word."""
    if len(word) <= 3:
        return word
    base = _american(_without_ending(SPELLINGS.get(word, word)))
    return base.removesuffix("e") if len(base) > 3 else base


def _without_ending(word: str) -> str:
    if word.endswith(("ies", "ied")) and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    for ending in ("ing", "ed"):
        base = word.removesuffix(ending)
        if base != word and len(base) >= 3 and not _VOWELS.isdisjoint(base):
            return base[:-1] if base[-1] == base[-2] and base[-1] not in "lsz" else base
    return word


def _american(word: str) -> str:
    if len(word) > 5:
        word = word.replace("our", "or").replace("isation", "ization").removesuffix("gue")
    word = word.replace("ll", "l")
    if word.endswith(("tre", "bre")):
        return word[:-2] + "er"
    if word.endswith(("ence", "enc")):
        return word[: word.rindex("enc")] + "ens"
    base = word.removesuffix("e")
    return base[:-1] + "z" if base.endswith(("is", "ys")) and len(base) > 5 else word


_VOWELS = frozenset("aeiouy")


def _groups(lines: str) -> Mapping[str, str]:
    """Return each word of a line under the line's first word."""
    groups = (line.split() for line in lines.strip().splitlines())
    return {word: group[0] for group in groups for word in group}


def _stemmed(groups: Mapping[str, str]) -> Mapping[str, str]:
    return {stem(word): stem(first) for word, first in groups.items()}


def _by_key(groups: Mapping[str, str]) -> Mapping[str, str]:
    return {SYNONYMS.get(stem(word), stem(word)): first for word, first in groups.items()}


def _pairs(lines: str) -> Mapping[str, frozenset[str]]:
    """Return the opposites of each stem: a line holds words of one side, a slash, and those of the other."""
    opposites: dict[str, set[str]] = {}
    for line in lines.strip().splitlines():
        left, right = ([stem(word) for word in side.split()] for side in line.split("/"))
        _oppose(opposites, left, right)
        _oppose(opposites, right, left)
    return {word: frozenset(others) for word, others in opposites.items()}


def _oppose(opposites: dict[str, set[str]], words: Iterable[str], others: Iterable[str]) -> None:
    for word in words:
        opposites.setdefault(word, set()).update(others)


def _phrases(lines: str) -> Mapping[str, Mapping[tuple[str, ...], str]]:
    """Return by its first stem each phrase (the stems that follow) with the word that stands for it."""
    phrases: dict[str, dict[tuple[str, ...], str]] = {}
    for line in lines.strip().splitlines():
        word, _, said = line.partition(":")
        for phrase in said.split(","):
            stems = [stem(part) for part in phrase.split()]
            phrases.setdefault(stems[0], {})[tuple(stems[1:])] = word.strip()
    return phrases


SPELLINGS = _groups(
    """
    gray grey
    tire tyre
    tires tyres
    check cheque
    checks cheques
    aluminum aluminium
    jewelry jewellery
    yogurt yoghurt yoghourt
    program programme
    programs programmes
    license licence
    licenses licences
    licensed licenced
    practice practise
    plow plough
    curb kerb
    mustache moustache
    pajamas pyjamas
    cozy cosy
    skeptical sceptical
    maneuver manoeuvre
    enroll enrol
    fulfill fulfil
    skillful skilful
    installment instalment
    pediatric paediatric
    anesthesia anaesthesia
    diarrhea diarrhoea
    hemoglobin haemoglobin
    fetus foetus
    airplane aeroplane
    judgment judgement
    aging ageing
    usable useable
    okay ok
    donut doughnut
    """
)
"""British and other spellings that no rule brings together, each line under the American one."""


@lru_cache(maxsize=16384)
def opposites_of(word: str) -> frozenset[str]:
    """Return the stems that are opposites of one: those of `OPPOSITES`, and by their beginning (`safe`, `unsafe`)."""
    opposed = set(OPPOSITES.get(word, ()))
    if len(word) > 3:
        opposed.update(prefix + word for prefix in OPPOSING_PREFIXES)
    opposed.update(rest for prefix in OPPOSING_PREFIXES if len(rest := word.removeprefix(prefix)) > 3)
    for pair in OPPOSED_BY_PREFIX:
        for prefix, other in (pair, pair[::-1]):
            if word.startswith(prefix) and len(word) > len(prefix):
                opposed.add(other + word.removeprefix(prefix))
    return frozenset(opposed - {word})


FOREIGN = _words(
    """der das und nicht wie ist ich mein meine kann wird ein eine einen auf mit von zu zum für warum wann wo le les des
    est que qui comment pas je mon ma mes une dans pour avec pourquoi quand où quelle quel el los las del como qué cómo
    mi por para con cuándo dónde está cuál il lo gli che non come perché quando dove sono qual o os um uma não como meu
    minha você het een van niet hoe mijn waar ik"""
)
"""Small words of other languages (German, French, Spanish, Italian, Portuguese, Dutch)."""

CONTRACTIONS: Mapping[str, str] = {
    "dont": "do not", "doesnt": "does not", "didnt": "did not", "cant": "can not", "cannot": "can not",
    "couldnt": "could not", "wont": "will not", "wouldnt": "would not", "shouldnt": "should not", "isnt": "is not",
    "arent": "are not", "wasnt": "was not", "werent": "were not", "havent": "have not", "hasnt": "has not",
    "hadnt": "had not", "aint": "is not", "im": "i am", "ive": "i have", "whats": "what is", "wheres": "where is",
    "hows": "how is", "whos": "who is", "thats": "that is", "theres": "there is", "lets": "let us", "gonna": "going to",
    "wanna": "want to", "gotta": "got to", "unable": "not able", "pls": "please", "plz": "please", "u": "you",
    "ur": "your", "thx": "thanks", "won't": "will not", "can't": "can not", "shan't": "shall not", "ain't": "is not",
    "let's": "let us", "y'all": "you all", "anyone": "someone", "anybody": "someone", "somebody": "someone",
    "anything": "something", "nobody": "not someone", "nothing": "not something", "nowhere": "not somewhere",
    "none": "not any", "without": "with not", "neither": "not either", "nor": "not or", "never": "not ever",
    "no": "not any", "w/o": "with not",
}  # fmt: skip

ENDINGS: Mapping[str, str] = {"ll": "will", "ve": "have", "re": "are", "m": "am", "d": "would"}
"""What stands behind the apostrophe of a pronoun or question word."""

IS_AFTER = _words("what where who how when why that it there here he she which")
"""Words after which 's stands for `is`; after others it marks a possessor."""

DETERMINERS = _words("a an the this that these those my our your his her its their")

PRONOUNS = _words("i you we he she it they me us him them there someone something one")

AUXILIARIES = _words("am are is was were do does did has have had can could will would shall should may might must")

FUNCTION_WORDS = (
    DETERMINERS
    | PRONOUNS
    | AUXILIARIES
    | _words(
        """mine myself ours yours yourself yourselves hers theirs oneself himself herself themselves somewhere everyone
    everything everybody everywhere who whom whose which what be been being done doing having ought of to in on at by
    for with from into onto upon about as than then and or but if so because while whether though although here how
    when where why not any some each every either both all such same own also too very just only even still yet already
    ever again per via out up down off over under through between among against during before after above below until
    till since within around along across toward towards behind beyond near like let lets got get gets getting gotten
    go goes going s t more most less least"""
    )
)
"""Words that carry no topic. Those that turn an answer around (`before`, `up`, `not`) have vetoes of their own."""

FILLERS = _words(
    """please kindly thanks thank hi hello hey dear sir madam um uh er hmm ok okay well tell know knowing knows wonder
    wondering wondered question questions ask asking help helping assist want wants wanted wanting need needs needed
    needing would like love possible possibly able way ways step steps exactly actually basically really simply maybe
    perhaps explain explaining advise guide us appreciate regarding concerning mean curious interested understand see
    look looking anyway currently now trying try asap cheers sorry idea mind grateful sure"""
)
"""Words of asking itself, which a question may have or leave out."""

PASSED_OVER = FUNCTION_WORDS | _words("want wants wanted need needs needed able possible trying try seem seems longer")
"""Words between a negation and what it denies."""

OPENINGS = (
    "hi", "hi there", "hi team", "hi all", "hello", "hello there", "hello everyone", "hey", "hey there", "dear team",
    "dear all", "dear sir or madam", "good morning", "good afternoon", "good evening", "good day", "excuse me", "sorry",
    "please", "kindly", "ok", "okay", "well", "so", "um", "uh", "basically", "quick question", "just wondering",
    "sorry to bother you", "sorry to bother you but", "sorry if this is a silly question but", "can you", "could you",
    "would you", "can you please", "could you please", "would you please", "could you kindly", "can someone",
    "would you mind telling me", "would you be so kind as to tell me", "tell me", "let me know", "explain",
    "explain to me", "explain why", "i was wondering", "i am wondering", "i'm wondering", "i wonder",
    "i would like to know", "i'd like to know", "i want to know", "i need to know", "i'd be grateful if you could",
    "i would be grateful if you could", "does anyone know", "do you know", "any idea", "may i ask", "can i ask",
    "help me", "help me understand", "show me", "give me", "thanks", "thank you",
)  # fmt: skip
"""What politeness puts in front of a question; any of these may follow another."""

CLOSINGS = (
    "please", "pls", "thanks", "thank you", "thx", "cheers", "many thanks", "thanks a lot", "thank you very much",
    "thank you so much", "thanks so much", "thanks in advance", "many thanks in advance",
    "thank you in advance", "thanks for your help",
    "thank you for your help", "asap", "by the way", "kind regards", "best regards", "regards",
)  # fmt: skip
"""What politeness puts behind a question."""

NUMBERS: Mapping[str, str] = {
    "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
    "nine": "9", "ten": "10", "eleven": "11", "twelve": "12", "thirteen": "13", "fourteen": "14", "fifteen": "15",
    "sixteen": "16", "seventeen": "17", "eighteen": "18", "nineteen": "19", "twenty": "20", "thirty": "30",
    "forty": "40", "fifty": "50", "sixty": "60", "seventy": "70", "eighty": "80", "ninety": "90", "dozen": "12",
    "second": "2th", "third": "3th", "fourth": "4th", "fifth": "5th", "sixth": "6th", "seventh": "7th", "eighth": "8th",
    "ninth": "9th", "tenth": "10th", "eleventh": "11th", "twelfth": "12th", "thirteenth": "13th", "fourteenth": "14th",
    "fifteenth": "15th", "sixteenth": "16th", "seventeenth": "17th", "eighteenth": "18th", "nineteenth": "19th",
    "twentieth": "20th", "thirtieth": "30th", "fortieth": "40th", "fiftieth": "50th", "hundredth": "100th",
    "half": "0.5", "halves": "0.5", "quarter": "0.25", "quarters": "0.25", "thirds": "1/3", "twice": "2", "thrice": "3",
    "double": "2", "triple": "3", "twenties": "20s", "thirties": "30s", "forties": "40s", "fifties": "50s",
    "sixties": "60s", "seventies": "70s", "eighties": "80s", "nineties": "90s",
    "ii": "2", "iii": "3", "vii": "7", "viii": "8",
}  # fmt: skip
"""Numbers in words; `th` marks a rank."""

MULTIPLIERS: Mapping[str, int] = {
    "hundred": 100, "thousand": 1000, "k": 1000, "lakh": 100_000, "million": 10**6, "mn": 10**6, "crore": 10**7,
    "billion": 10**9, "bn": 10**9, "trillion": 10**12,
}  # fmt: skip

ROMAN: Mapping[str, str] = {
    "II": "2", "III": "3", "IV": "4", "VI": "6", "VII": "7", "VIII": "8", "IX": "9", "XI": "11", "XII": "12",
    "XIII": "13", "XIV": "14", "XV": "15", "XVI": "16", "XVII": "17", "XVIII": "18", "XIX": "19", "XX": "20",
    "XXI": "21",
}  # fmt: skip
"""In capitals; one letter alone is more often a letter."""

UNITS = _groups(
    """
    km kms kilometer kilometers kilometre kilometres
    mile miles mi
    meter meters metre metres
    cm centimeter centimeters centimetre centimetres
    mm millimeter millimeters millimetre millimetres
    inch inches
    foot feet ft
    yard yards yd yds
    acre acres
    hectare hectares
    mph
    kph kmh
    knot knots
    kg kgs kilo kilos kilogram kilograms kilogramme kilogrammes
    gram grams gramme grammes g
    mg milligram milligrams
    mcg microgram micrograms
    ton tons
    tonne tonnes
    pound pounds lb lbs gbp sterling quid
    ounce ounces oz
    stone stones
    liter liters litre litres l
    ml milliliter milliliters millilitre millilitres
    gallon gallons
    pint pints
    quart quarts
    cup cups
    tablespoon tablespoons tbsp
    teaspoon teaspoons tsp
    second seconds sec secs
    millisecond milliseconds ms
    minute minutes min mins
    hour hours hr hrs hourly
    day days daily
    nightly
    week weeks weekly
    fortnight fortnights fortnightly
    month months monthly
    quarterly
    year years yr yrs yearly annual annually
    decade decades
    century centuries
    celsius centigrade
    fahrenheit
    kelvin
    percent percentage
    watt watts
    kilowatt kilowatts kw
    kwh
    volt volts
    amp amps
    calorie calories kcal
    joule joules
    byte bytes
    kb kilobyte kilobytes
    mb megabyte megabytes
    gb gigabyte gigabytes
    tb terabyte terabytes
    bit bits
    mbps
    gbps
    hz hertz
    mhz megahertz
    ghz gigahertz
    dollar dollars usd
    euro euros eur
    yen jpy
    rupee rupees inr
    yuan cny
    franc francs chf
    peso pesos
    ruble rubles rub
    krona kronor sek
    cent cents
    penny pence pennies
    bitcoin bitcoins btc
    ether ethereum eth
    """
)

UNITS_BEHIND_NUMBERS = _words("min second sec foot stone stones yard yards cup cups bit bits ms mi g l rub knot knots")
"""Units that are other words too: they count as units only with a number, or `per`, in front."""

SYMBOLS: Mapping[str, str] = {"$": "dollar", "€": "euro", "£": "pound", "¥": "yen", "₹": "rupee", "%": "percent"}

MONTHS = _groups(
    """
    january jan
    february feb
    march-month march mar
    april apr
    may-month may
    june jun
    july jul
    august aug
    september sep sept
    october oct
    november nov
    december dec
    """
)

DATES: Mapping[str, str] = {
    **MONTHS,
    **_groups(
        """
    monday mondays mon
    tuesday tuesdays tue tues
    wednesday wednesdays wed
    thursday thursdays thu thur thurs
    friday fridays fri
    saturday saturdays sat
    sunday sundays sun
    today
    tomorrow
    yesterday
    tonight
    spring-season spring springtime
    summer summertime
    autumn fall autumns
    winter wintertime
    weekend weekends
    weekday weekdays
    christmas xmas
    easter
    eve-day eve
    noon midday
    midnight
    morning mornings
    afternoon afternoons
    evening evenings
    night nights overnight
    daytime
    """
    ),
}

DATES_IN_CONTEXT = _words("may march mar fall spring sat sun wed mon jan eve")
"""Dates that are other words too: they count only beside a number or behind one of `DATE_LEADS`."""

DATE_LEADS = _words("in on of by since until till during next last every")

TIME_SHIFTS = _groups(
    """
    this current
    next coming following
    last previous past
    """
)
"""Words that say which week or month is meant; they count in front of a unit or name of time."""

OPPOSITES = _pairs(
    """
    up upward upwards / down downward downwards
    on / off
    in inside indoors inward / out outside outdoors outward
    before prior / after
    above over / below under beneath
    within / beyond outside
    with / against
    toward towards / away
    home / away
    first / last
    early earlier earliest / late later latest
    more most / less least fewer fewest
    max maximum highest / min minimum lowest
    high higher tall taller tallest / low lower short shorter shortest
    big bigger biggest large larger largest huge great greater greatest / small smaller smallest little tiny
    long longer longest / short shorter shortest brief
    fast faster fastest quick quicker quickest quickly rapid rapidly / slow slower slowest slowly
    hot hotter hottest warm warmer warmest / cold colder coldest cool cooler coolest
    cheap cheaper cheapest inexpensive affordable cheaply / expensive pricey costly dearer
    easy easier easiest simple easily / hard harder hardest difficult complex complicated
    good better best great well / bad worse worst poor badly
    new newer newest / old older oldest used
    young younger youngest / old older oldest elderly
    heavy heavier heaviest / light lighter lightest
    light lighter lightest / dark darker darkest
    strong stronger strongest / weak weaker weakest
    thick thicker thickest / thin thinner thinnest
    fat / thin lean
    wide wider widest broad broader / narrow narrower narrowest
    deep deeper deepest / shallow
    full / empty vacant
    rich richer richest wealthy / poor poorer poorest
    safe safer safest / dangerous risky
    safety / danger
    true / false
    right correct / wrong incorrect
    open / close closed shut
    start begin began begun commence launch resume / stop end finish quit halt pause
    beginning / end
    continue / stop quit discontinue
    add / remove delete subtract deduct
    insert / remove delete extract
    addition / subtraction
    plus / minus
    multiply times / divide divided
    multiplication / division
    buy bought purchase / sell sold sale
    rent / buy own
    borrow / lend lent
    deposit / withdraw withdrawn withdrew withdrawal
    send sent / receive received
    give gave given / take took taken
    push / pull
    win won winner victory / lose lost loser defeat
    gain profit / loss lose lost
    increase raise grow rise rising rose boost / decrease reduce lower shrink
    increase / reduction drop decline
    rise rose risen / fall fell fallen drop decline
    climb ascend / descend
    enable activate / disable deactivate
    lock block / unlock unblock
    accept approve / reject decline refuse deny
    approval acceptance / rejection refusal denial
    allow permit / forbid forbidden ban prohibit
    import / export
    upload / download
    login / logout
    install / uninstall
    connect / disconnect
    arrive arrival / depart departure leave left
    enter entry / exit leave left
    entrance / exit
    join / leave quit
    stay / leave go
    come / go
    love like / hate dislike
    remember / forget forgot forgotten
    find found / lose lost
    succeed success successful pass / fail failure
    create build built / destroy
    attack / defend
    offense offence / defense defence
    teach taught teacher / learn learned
    teacher / student
    hire / fire dismiss
    lead / follow
    male / female
    man men gentleman boy / woman women lady girl
    husband groom / wife bride
    father dad / mother mom
    son / daughter
    brother / sister
    uncle / aunt
    nephew / niece
    grandfather grandpa / grandmother grandma
    king prince / queen princess
    actor / actress
    day daytime / night nighttime
    morning / evening night
    north northern northeast / south southern southeast
    east eastern / west western
    northeast southeast / northwest southwest
    left / right
    front / back rear
    forward forwards / backward backwards back
    top upper / bottom lower
    public / private
    internal interior / external exterior
    domestic / international foreign
    local / remote global
    urban / rural
    legal lawful / illegal unlawful
    guilty / innocent
    married / single divorced unmarried
    marry / divorce
    single / multiple double several many
    single / return
    dead / alive
    present / absent
    presence / absence
    past / future
    ancient / modern
    major / minor
    majority / minority
    positive / negative
    active / passive inactive
    manual manually / automatic automatically
    physical / virtual digital
    hardware / software
    debit / credit
    debtor / creditor
    income earnings revenue / expense expenses expenditure
    asset / liability
    refund / charge
    gross / net
    surplus / deficit
    inflation / deflation
    wholesale / retail
    employer / employee
    lender / borrower
    landlord lessor / tenant lessee
    plaintiff / defendant
    seller vendor / buyer customer
    producer / consumer
    sender / recipient receiver
    mentor / mentee
    parent / child children
    ancestor / descendant
    input / output
    offline / online
    permanent permanently / temporary temporarily
    fresh / stale salt frozen
    raw / cooked
    rare / frequent
    rarely seldom / often usually frequently
    common usual normal / rare unusual abnormal uncommon
    wet / dry
    damp / dry
    clean / dirty
    loud / quiet
    noisy / quiet silent
    bright / dark dim
    sharp / blunt dull
    smooth / rough
    soft softer / hard harder
    tight tighter / loose looser
    tighten / loosen
    always / sometimes rarely seldom occasionally
    all every everyone everybody everything / some few
    many / few
    much / little
    include included including / exclude excluded excluding except
    inclusive / exclusive
    encrypt / decrypt
    encode / decode
    compress / decompress extract
    serialize / deserialize
    mute / unmute
    expand / collapse shrink contract
    expansion / contraction
    ascending / descending
    vertical vertically / horizontal horizontally
    clockwise / counterclockwise anticlockwise
    bull bullish / bear bearish
    call / put
    pre / post
    pro advantage benefit upside / con disadvantage drawback downside risk danger
    strength / weakness
    cause / effect consequence
    supply / demand
    same / different
    similar / different
    similarity / difference
    synonym / antonym
    natural / artificial synthetic
    organic / synthetic
    theory theoretical / practice practical
    quality / quantity
    friend / enemy
    ally / enemy
    war / peace
    life live / death die
    birth born / death die
    dawn / dusk
    sunrise / sunset
    sick ill unwell / healthy well
    happy glad / sad unhappy
    beautiful pretty / ugly
    clever smart intelligent / stupid dumb
    kind / cruel
    brave / cowardly
    lazy / hardworking
    polite / rude
    generous / stingy
    optimist optimistic / pessimist pessimistic
    introvert / extrovert
    liquid / solid gas
    sweet / sour bitter salty
    guest / host
    client / server
    frontend / backend
    lengthen / shorten
    strengthen / weaken
    widen / narrow
    thicken / thin
    heat heating / cool cooling
    boiling boil / freezing freeze
    freeze / melt thaw unfreeze
    freezing / melting
    attach / detach
    assemble / disassemble
    wake awake / sleep asleep
    save / spend waste
    earn / spend
    praise / blame
    hide hidden / show shown reveal
    appear / disappear
    agree / disagree
    zip / unzip
    maximize / minimize
    inflow / outflow
    inbound incoming / outbound outgoing
    inner / outer
    upgrade / downgrade
    upstream / downstream
    upstairs / downstairs
    overweight / underweight
    encourage / discourage
    required mandatory compulsory necessary / optional voluntary
    required mandatory / forbidden prohibited
    nocturnal / diurnal
    carnivore / herbivore
    predator / prey
    vegetarian vegan / meat
    acid acidic / base basic alkaline
    convex / concave
    odd / even
    prefix / suffix
    uppercase / lowercase
    singular / plural
    numerator / denominator
    vowel / consonant
    prosecution / defence
    supporter / opponent
    support / oppose
    advance / retreat
    departing / arriving
    takeoff / landing
    squeeze / stretch
    bend / straighten
    curly / straight
    flexible / rigid
    liberal / conservative
    democracy / dictatorship
    capitalism / socialism communism
    optimal / worst
    """
)

OPPOSING_PREFIXES = ("un", "in", "im", "il", "ir", "dis", "non", "de", "mis", "anti", "under", "over", "pre", "post")

OPPOSED_BY_PREFIX = (
    ("over", "under"), ("up", "down"), ("pre", "post"), ("hyper", "hypo"), ("macro", "micro"), ("inter", "intra"),
    ("im", "ex"), ("in", "ex"),
)  # fmt: skip
"""Beginnings that make two words of one rest opposites."""

SYNONYMS = _stemmed(
    _groups(
        """
    buy purchase bought
    start begin began begun commence
    get obtain acquire receive
    delete remove erase
    fix repair mend
    solve resolve
    display show
    choose select pick chose chosen
    find locate found
    movie film
    picture photo image photograph pic
    phone telephone cellphone smartphone mobile
    kid child children
    website site webpage
    internet web
    price cost
    fee charge
    big large
    bigger larger
    biggest largest
    small little
    fast quick rapid speedy
    faster quicker
    fastest quickest
    correct right
    wrong incorrect
    allow permit let
    change modify alter
    happen occur
    end finish conclude
    total sum
    rich wealthy
    job occupation profession
    doctor physician
    lawyer attorney
    car automobile
    happy glad
    sick ill unwell
    main primary
    problem issue trouble
    reason cause
    salary wage pay
    country nation
    difference distinction
    advice tip
    method technique approach
    stop quit
    require need
    reply respond
    speak talk
    uk britain
    tv television telly
    pc computer
    fridge refrigerator
    apartment flat
    holiday vacation
    truck lorry
    zip postcode
    store shop
    email mail
    mother mom mum mommy
    father dad daddy
    cheap cheapest inexpensive affordable
    hard difficult
    easy simple
    trash garbage rubbish
    book reserve reservation
    advantage benefit upside
    disadvantage drawback downside
    decrease reduce lower
    increase raise
    improve enhance
    nearest closest
    overseas abroad
    forbid forbidden prohibit ban
    hire rent
    purpose function
    duty obligation
    parcel package
    luggage baggage
    elevator lift
    subway metro
    highway motorway freeway
    gasoline petrol
    sofa couch
    cab taxi
    candy sweets
    cookie biscuit
    eggplant aubergine
    zucchini courgette
    cilantro coriander
    pants trousers
    soccer footbal
    faucet tap
    diaper nappy
    pharmacy drugstore
    wrench spanner
    flashlight torch
    stroller pram pushchair
    author writer wrote
    infant baby
    gift present
    signup register registration
    enable activate
    disable deactivate
    info information
    temp temperature
    app application
    max maximum
    min minimum
    admin administrator
    appt appointment
    doc document
    acct account
    id identification
    uni university
    lab laboratory
    exam examination
    bike bicycle
    ad advert advertisement
    dept department
    govt government
    msg message
    pwd password pw
    vs versus
    avg average
    approx approximately roughly
    qty quantity
    addr address
    flu influenza
    math maths mathematics
    stats statistics
    spec specification
    config configuration
    dev developer
    repo repository
    db database
    env environment
    auth authentication
    param parameter
    arg argument
    veggie vegetable
    condo condominium
    ave avenue
    """
    )
)
"""Stems that may stand for each other, each under the first of its line."""

PHRASES = _phrases(
    """
    login: log in, sign in, log on, sign on, log into, sign into
    logout: log out, sign out, log off, sign off
    register: sign up
    enable: turn on, switch on
    disable: turn off, switch off
    remove: get rid of
    asap: as soon as possible
    why: how come
    forbidden: not allowed, not permitted
    illegal: against the law
    twice: two times
    now: right now, at the moment
    author: written by
    support: customer service, customer support, customer care
    faq: frequently asked question
    eta: estimated arrival time, estimated time of arrival
    usa: united states of america, united states
    uk: united kingdom
    photograph: take a photo of, take a picture of
    except: everything but, everyone but, anything but, anyone but, all but, apart from, other than, aside from
    """
)
"""Phrases that one word stands for."""

PARTED = _words("turn switch")
"""Verbs of `PHRASES` that may have their object before `on` and `off`."""

CLAUSE_STARTS = _words("if when because while since although though unless whether whenever once as but")

PREPOSITIONS = _words(
    """in on at for with during before after without within by about from to into than over versus vs until till since
    under above below between among against through near inside outside behind beside toward towards like via"""
)

ROLES = {"from": "from", "to": "to", "into": "to", "than": "than", "over": "than", "versus": "than", "vs": "than"}
"""Words that say which part the next one plays."""

TURNS = _by_key(
    _groups(
        """
        avoid prevent stop
        only solely exclusively
        except besides excluding
        hardly barely scarcely rarely seldom
        almost nearly
        fail
        refuse decline
        lack miss
        former ex previous
        fake false
        free
        instead
        """
    )
)
"""Words, by their keys, that turn a question around when added to it, each under the first of its kind."""

NEGATIVE_TURNS = _words("avoid fail refuse lack hardly")
"""Kinds of `TURNS` that say no."""

QUANTIFIERS = {
    **dict.fromkeys(("all", "every", "each", "everyone", "everybody", "everything"), "all"),
    **dict.fromkeys(("some", "any"), "some"),
    **{word: word for word in ("most", "few", "several", "both", "either")},
}

RELATIONS = {
    **{word: word for word in ("before", "after", "during", "until", "since", "within", "beyond")},
    "till": "until",
    "past": "after",
}
"""Words that place one thing in time or space against another."""

BOUNDS = {
    **dict.fromkeys(("at least", "minimum of"), "at least"),
    **dict.fromkeys(("at most", "up to", "maximum of"), "at most"),
    **dict.fromkeys(("more than", "greater than", "higher than", "over", "above"), "more than"),
    **dict.fromkeys(("less than", "fewer than", "lower than", "under", "below"), "less than"),
}
"""What may stand in front of a number and bound it."""

PERSONS = {
    **dict.fromkeys(("i", "me", "my", "mine", "myself"), "first"),
    **dict.fromkeys(("we", "us", "our", "ours", "ourselves"), "first"),
    **dict.fromkeys(("you", "your", "yours", "yourself"), "second"),
    **dict.fromkeys(("he", "him", "his", "himself"), "he"),
    **dict.fromkeys(("she", "her", "hers", "herself"), "she"),
    **dict.fromkeys(("they", "them", "their", "theirs", "themselves"), "they"),
}

QUESTION_WORDS = {"why": "reason", "when": "time", "where": "place", "who": "person", "whom": "person"}
AMOUNTS = {
    "much": "amount",
    "many": "amount",
    "long": "duration",
    "often": "frequency",
    "far": "distance",
    "old": "age",
    "soon": "time",
    "fast": "speed",
    "big": "size",
    "large": "size",
    "tall": "height",
}
DURATIONS = _words("minute hour day week month year")
TIMES = _words("time year day date month")

MODALS = {"can": "possible", "could": "possible", "may": "possible", "should": "advisable", "must": "required"}

TENSES = {
    **dict.fromkeys(("will", "shall"), "future"),
    **dict.fromkeys(("did", "was", "were", "had"), "past"),
    **dict.fromkeys(("do", "does"), "habit"),
    **dict.fromkeys(("is", "are"), "present"),
    **dict.fromkeys(("has", "have"), "perfect"),
}
OPPOSED_TENSES = frozenset(
    frozenset(pair)
    for pair in (
        ("future", "past"),
        ("future", "present"),
        ("future", "perfect"),
        ("past", "present"),
        ("past", "habit"),
    )
)
