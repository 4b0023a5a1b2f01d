namespace NopeGpt.Data.Documents.Stories;

/// <summary>What the hero wishes ("to see the sea") and the thing itself ("the sea").</summary>
internal sealed record Wish(Template To, Template Goal);

/// <summary>What stands in the way, how the story comes to it and how it gets past.</summary>
internal sealed record Turn(string Name, Template[] Meet, Template[] Solve);

/// <summary>One plot shape: its wishes, its turns, and the beats in the order in which they are told.</summary>
internal sealed record Plot(
    string Name, Wish[] Wishes, Turn[] Turns, Template[] Want, Template[] Try, Template[] Help, Template[] End,
    Thing[][] Things, Thing[][] Creatures, string[] Spots);
