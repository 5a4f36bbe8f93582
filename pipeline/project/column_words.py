"""The words that tell what a column is, in names such as ``userId``, ``user_id`` or ``User ID``."""

import re
import unicodedata

_SPLIT = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_BEFORE = r"^((is|has|was|did|will|label|target|user|flag|num|n)_)*"
_AFTER = r"(_(flag|label|yn|ind|indicator|bool))?$"
_ANSWERS = (
    r"label|target|y|outcome|response|click|clicks|clicked|tap|tapped|open|opened|long_view|effective_view|valid_play|play"
    r"|played|watched|finish|finished|complete|completed|like|likes|liked|dislike|disliked|love|loved|hate|hated|favou?rite"
    r"|favou?rited|bookmark|bookmarked|save|saved|wishlist|wishlisted|share|shared|repost|reposted|retweet|comment|commented"
    r"|reply|replied|respond|responded|answered|correct|follow|followed|subscribe|subscribed|unsubscribed|skip|skipped|hide"
    r"|hidden|dismiss|dismissed|report|reported|forward|forwarded|purchase|purchased|bought|buy|sale|sold|order|ordered"
    r"|reordered|checkout|add_to_cart|added_to_cart|cart|carted|convert|converted|conversion|conversions|install|installed"
    r"|download|downloaded|book|booked|booking|reserved|apply|applied|application|hired|interviewed|accept|accepted|reject"
    r"|rejected|approve|approved|cancel|cancelled|canceled|return|returned|refunded|churn|churned|default|defaulted|fraud"
    r"|success|passed|won|win|match|matched|donated|redeem|redeemed|renewed|attended|engaged|engagement|interacted"
    r"|interaction|read|listened|rated|voted|upvote|upvoted|recommended|conv|cvr|ctr|visited|contacted|swiped"
)
ANSWER = re.compile(f"{_BEFORE}({_ANSWERS}){_AFTER}")
"""A column of two values that says what came of an event."""
MEASURE = re.compile(
    r"(^|_)(rating|stars|watch|watched|dwell|play_time|playing_time|listen|listened|ms_played|played_ms|seconds_played"
    r"|time_spent|read_time|eta|basket|revenue|gmv|spend|spent|order_value|ltv|satisfaction|completion|target|label"
    r"|review_score)(_|$)"
)
"""A number that says how much came of an event."""
WEAK_MEASURE = re.compile(r"(^|_)(duration|amount|delay|score|total|quantity|grade|minutes|progress)(_|$)")
"""A number that may say so."""
SUMMARY = re.compile(
    r"(^|_)(avg|average|mean|median|std|count|cnt|prior|hist|history|last|prev|previous|max|min|pct)(_|$)"
)
"""A number that says something of the time before the event."""
POSITIVE = re.compile(
    r"^(yes|y|true|t|1|pos|positive|success|successful|won|win|hit|pass|passed|good|accept|accepted|approved|click|clicked"
    r"|convert|converted|purchase|purchased|bought|booked|hired|like|liked|applied|ordered|installed|subscribed|downloaded|responded|opened"
    r"|saved|shared)$"
)
NEGATIVE = re.compile(
    r"^(no|n|false|f|0|neg|negative|fail|failed|failure|lost|miss|bad|reject|rejected|declined|none|nothing|ignore|ignored|no_?show|abandoned|bounced|expired|not_.*|no_.*|un[a-z]+ed)$"
)
OUTCOME = re.compile(r"(^|_)(outcome|result|status|response|reaction|decision|answer|disposition)(_(type|name|code))?$")
"""A column that says in words what came of its own row."""
TYPE = re.compile(
    r"(^|_)(event|action|behavi[a-z]*r|activity|interaction|feedback|signal|verb)(_(type|name|kind|class|id|code))?$|^type$"
)
"""A column that tells kinds of events apart."""
SHOWN = re.compile(r"view|impress|show|expos|display|page|play|serve|deliver|sent|recommend|visit|open|load|pdp")
SEEN = re.compile(r"^(view|viewed|shown|seen|displayed|impression|exposed|visited|sent|delivered|served)$")
"""What a row says of which nothing came."""
TAKEN = re.compile(
    r"purchas|buy|bought|order|checkout|install|convert|conversion|subscrib|book|apply|applied|cart|transaction|payment|sale"
)
ANSWERED = re.compile(r"click|tap|like|skip|share|comment|follow|save|dismiss|hide|reply|rate|watch|complete|download")
USERS = (
    re.compile(
        r"(^|_)(user|uid|customer|client|member|buyer|shopper|viewer|listener|reader|rider|guest|patient|student)(_|$)"
    ),
    re.compile(
        r"(^|_)(candidate|seeker|person|profile|account|visitor|passenger|traveller|traveler|learner|player|subscriber"
        r"|consumer|author|follower|employee|household|card|cust|usr)(_|$)"
    ),
    re.compile(r"(^|_)(device|cookie|session|ip|browser|fingerprint|idfa|gaid)(_|$)"),
)
"""Who answers, the surest first."""
ITEMS = (
    re.compile(
        r"(^|_)(item|sku|product|article|video|movie|film|book|isbn|asin|song|track|job|vacancy|posting|hotel|listing|recipe"
        r"|course|game|app|restaurant|rest|news|podcast|episode|show|dish|photo|pin|book|question|exercise|iid|vid|mid)(_|$)"
    ),
    re.compile(
        r"(^|_)(ad|advert|creative|banner|offer|deal|coupon|content|doc|document|post|property|room|vehicle|driver|poi"
        r"|goods|gift|title|asset)(_|$)"
    ),
    re.compile(r"(^|_)(merchant|store|shop|seller|place|venue|artist|album|channel|campaign|page|brand)(_|$)"),
)
"""What is answered to, the surest first."""
TIME = re.compile(
    r"(^|_)(ts|time|timestamp|at|on|date|datetime|dt|day|when|created|occur[a-z]*|epoch|moment|stamp|start|started|begin"
    r"|began|begun|updated|modified|logged|shown|happened|ms|millis|us|micros|unix|utc)(_|$)|(time|date)$"
)
OTHER_TIME = re.compile(
    r"(^|_)(birth|birthday|dob|signup|sign_up|registered|registration|register|joined|join|updated|modified|expires"
    r"|expiry|until|click|clicked|convert|converted|deliver|delivered|due"
    r"|published|release|released|applied|booked|purchased|check_?in|check_?out|partition)(_|$)"
)
"""Times that are not the event's own, where there is another."""
AFTER = re.compile(
    r"(^|_)(end|ended|stop|stopped|ingest|ingested|ingestion|load|loaded|processed|received|inserted)(_|$)"
)
"""Times soon after the event, which tell its moment better than a day does."""
CHANGED = re.compile(r"(^|_)(updated|modified|changed|version|valid_from|ingested|loaded|as_of)(_|$)")
"""Times at which a row of a table was written."""
NAME_OF = re.compile(
    r"(^|_)(id|uuid|guid|key|code|no|nr|number|zip|zipcode|postcode|hash|token|idx|index|type|status)$"
)
"""Numbers that are names of something."""


_IN_IE = ("movies", "cookies", "series")


def snake(name: str) -> str:
    """A name in small letters, with one ``_`` between its words.

    Example:
        >>> snake("userId"), snake("Search Time"), snake("price (EUR)"), snake("HTTPStatus"), snake("7d clicks")
        ('user_id', 'search_time', 'price_eur', 'http_status', '7d_clicks')
    """
    folded = unicodedata.normalize("NFKD", _SPLIT.sub("_", name)).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "_", folded.lower()).strip("_")


def plain(name: str, instead: str = "task") -> str:
    """A name that a task can have.

    Example:
        >>> plain("Booked?"), plain("2024"), plain("?")
        ('booked', 'task_2024', 'task')
    """
    text = snake(name)
    return text if text[:1].isalpha() else f"{instead}_{text}".strip("_")


def singular(name: str) -> str:
    """The word of one, from that of several.

    Example:
        >>> [singular(word) for word in ("jobs", "movies", "categories", "news")]
        ['job', 'movie', 'category', 'news']
    """
    if name.endswith("ies") and name not in _IN_IE:
        return name[:-3] + "y"
    return name[:-1] if name.endswith("s") and not name.endswith(("ss", "news", "series")) else name
