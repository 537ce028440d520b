"""Three wordings for each ESC-50 class."""

from __future__ import annotations

from types import MappingProxyType

_TABLE = """
airplane|a plane is flying by|an aircraft passes high above|propellers or jets drone across the sky
breathing|somebody is breathing|air goes in and out of a person's nose|slow deep breaths are heard
brushing_teeth|somebody is brushing teeth|a toothbrush moves to and fro|scrubbing in a mouth
can_opening|somebody opens a can|the ring of a drinks can is pulled|a can cracks and fizzes
car_horn|a car is honking|an impatient motorist sounds the horn|horns blow on a street
cat|a cat is meowing|mewing of a house cat|a hungry cat calls
chainsaw|a chainsaw is running|a motor saw fells a tree|the engine of a chainsaw revs up
chirping_birds|birds chirp|a songbird twitters outside|several birds sing in the morning
church_bells|the bells of a church are ringing|a bell tower chimes|heavy bells swing and clang
clapping|people clap|a crowd is applauding|hands are clapped together
clock_alarm|an alarm clock is ringing|beeping that wakes a sleeper|a bedside alarm goes off
clock_tick|a clock ticks|tick tock of a clock|the second hand of a clock moves on
coughing|somebody coughs|a fit of coughing|a dry cough from a sick person
cow|a cow is mooing|cattle low in a meadow|one long moo
crackling_fire|a fire is crackling|logs burn in a fireplace|flames pop and snap
crickets|crickets are chirping|crickets sing on a summer night|a steady trill in the grass
crow|a crow is cawing|hoarse calls of a crow|a raven croaks from a tree
crying_baby|a baby is crying|screams of an upset newborn|the sobbing of a small child
dog|a dog is barking|woofs of a dog|a hound barks at something
door_wood_creaks|a wooden door is creaking|old hinges squeak|a door groans as it swings slowly
door_wood_knock|somebody knocks on a door|knuckles rap on wood|a few knocks at a wooden door
drinking_sipping|somebody is drinking|a person sips from a cup|slurping of a hot drink
engine|an engine is idling|a motor is running|a car's engine rumbles
fireworks|fireworks explode|rockets burst in the sky|bangs and crackles of fireworks
footsteps|somebody is walking|steps of shoes on the ground|footfalls go by
frog|a frog is croaking|ribbits from a pond|the call of a toad
glass_breaking|glass breaks|a window is smashed|shards of glass clatter down
hand_saw|somebody saws wood by hand|a saw goes through a board|rasping strokes of a saw
helicopter|a helicopter is flying|spinning rotors thump above|the thud of a hovering chopper
hen|a hen is clucking|cackling of a chicken|hens cluck in a coop
insects|an insect buzzes|a fly hums around|the whirr of small wings
keyboard_typing|somebody types on a keyboard|keys of a computer clatter|fast typing at a desk
laughing|somebody is laughing|a burst of laughter|people giggle and laugh
mouse_click|a computer mouse is clicked|clicks of a mouse button|somebody clicks with a mouse
pig|a pig is grunting|oinking of a pig|a hog snorts and squeals
pouring_water|water is being poured|a glass is filled with water|liquid runs out of a jug
rain|rain is falling|drops of rain drum on a roof|a steady downpour
rooster|a rooster is crowing|cock-a-doodle-doo at dawn|the crow of a cockerel
sea_waves|waves roll onto a beach|surf breaks on the shore|the sea washes in and out
sheep|a sheep is bleating|baa of a lamb|a flock bleats in a field
siren|a siren is wailing|an ambulance drives past with its siren on|the siren of a police car
sneezing|somebody sneezes|a loud achoo|a sudden sneeze
snoring|somebody is snoring|a sleeper snores noisily|rasping breath of a person asleep
thunderstorm|thunder rumbles|a storm with lightning and thunder|claps of thunder roll
toilet_flush|a toilet is flushed|water rushes through a toilet bowl|the flushing of a lavatory
train|a train is passing|wheels of a train clack on the rails|a locomotive rolls by
vacuum_cleaner|a vacuum cleaner is on|somebody vacuums the floor|the howl of a hoover
washing_machine|a washing machine is running|a drum of laundry turns|the spin cycle of a washer
water_drops|water is dripping|drops fall from a tap|single drops plink into water
wind|wind is blowing|a gale howls|gusts rush through the trees
"""


def _parse(table: str) -> dict[str, tuple[str, ...]]:
    rows = (line.split("|") for line in table.strip().splitlines())
    return {label: tuple(wordings) for label, *wordings in rows}


CLASS_PHRASES = MappingProxyType(_parse(_TABLE))
"""ESC-50 class name to three captions; used when a data set's folder brings none."""
