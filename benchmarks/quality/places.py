"""The places that the comparison's clips are filmed in: 64 maps of Freedoom by their own titles. Owns the list.

Left out are four maps that start in a corner too narrow for most camera motions.

Each clip begins near the map's start, so that a place is one place: many distinct scenes, little variety in each.
That is what makes one small network short of capacity, and what semantic clusters can divide. Filmed as views (see
FilmPlan) only the first 56 can be: the start of MAP22 looks at a wall.
"""

from kinoswarm_model.data.scenes import Colour, Scene

_FREEDOOM_1 = """
E1M1 outer prison
E1M2 communications center
E1M3 waste disposal
E1M4 supply depot
E1M5 armory
E1M6 training facility
E1M7 xenobiotic materials lab
E1M8 outpost quarry
E1M9 nutrient recycling
E2M1 elemental gate
E2M2 shifter
E2M3 reclaimed facilities
E2M4 flooded installation
E2M5 underground hub
E2M6 hidden sector
E2M7 control complex
E2M8 containment cell
E2M9 fortress thirty one
E3M1 land of the lost
E3M2 geothermal tunnels
E3M3 sacrificial bastion
E3M4 oblation temple
E3M5 infernal hallows
E3M6 igneous intrusion
E3M8 ancient lair
E3M9 acquainted with grief
E4M1 maintenance area
E4M2 research complex
E4M3 central computing
E4M4 hydroponic facility
E4M5 engineering station
E4M6 command center
E4M7 waste treatment
E4M8 launch bay
E4M9 operations
"""
_FREEDOOM_2 = """
MAP01 hydroelectric plant
MAP02 filtration tunnels
MAP03 crude processing center
MAP04 containment bay
MAP05 sludge burrow
MAP06 janus terminal
MAP07 logic gate
MAP08 astronomy complex
MAP09 datacenter
MAP10 deadly outlands
MAP11 dimensional rift observatory
MAP12 railroads
MAP13 station earth
MAP14 nuclear zone
MAP15 hostile takeover
MAP16 urban jungle
MAP17 city capitol
MAP18 aquatics lab
MAP19 sewage control
MAP20 blood ember fortress
MAP21 under realm
MAP22 remanasu
MAP23 underground facility
MAP24 abandoned teleporter lab
MAP25 persistence of memory
MAP26 dark depths
MAP27 palace of red
MAP29 melting point
MAP32 not sure
"""
_SEES_ANYTHING = 1.0


def _place(wad: str, line: str) -> Scene:
    name, title = line.split(" ", 1)
    return Scene(
        name=name.lower(),
        wad=wad,
        map=name,
        place=title,
        colour=Colour.GREY,
        least_share=0.0,
        start_share=1.0,
        most_share_untold=_SEES_ANYTHING,
    )


PLACES = tuple(
    _place(wad, line)
    for wad, lines in (("freedoom1.wad", _FREEDOOM_1), ("freedoom2.wad", _FREEDOOM_2))
    for line in lines.split("\n")
    if line
)
