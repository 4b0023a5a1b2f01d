using NopeGpt.Data.Documents.Stories;

namespace NopeGpt.Data.Documents;

/// <summary>What is true in a story, drawn before a word of it is written: the text is rendered from it,
/// so names, pronouns and things stay the same from the first sentence to the last.</summary>
internal sealed record StoryFacts(
    Plot Plot, Wish Wish, Turn Turn, Character Hero, Character Friend, Character Elder, Trait Trait, Thing Thing,
    Place Place, string Home, string When, string Food, Thing Creature, string Spot1, string Spot2, string Spot3, string Hide, string Sound)
{
    /// <summary>The facts of one story: a pure function of the random stream.</summary>
    public static StoryFacts Draw(ref StoryRandom random)
    {
        StoryGrammar grammar = StoryGrammar.Instance;
        Lexicon lexicon = grammar.Lexicon;
        Plot plot = random.Pick(grammar.Plots);
        bool people = random.Chance(45);
        Character hero = Person(ref random, lexicon, people, otherThan: null, otherKind: null);
        Character friend = Person(ref random, lexicon, people, hero.Name, people ? null : hero.Kind);
        int spot = random.Below(plot.Spots.Length), step = 1 + random.Below((plot.Spots.Length - 1) / 2);
        return new StoryFacts(
            plot, random.Pick(plot.Wishes), random.Pick(plot.Turns), hero, friend,
            random.Pick(people ? lexicon.PeopleElders : lexicon.AnimalElders), random.Pick(lexicon.Traits),
            random.Pick(random.Pick(plot.Things)), random.Pick(random.Pick(lexicon.Places)),
            random.Pick(people ? lexicon.PeopleHomes : lexicon.AnimalHomes), random.Pick(lexicon.Whens), random.Pick(lexicon.Foods),
            random.Pick(random.Pick(plot.Creatures)),
            // Three different ones: a step below half the list never comes back to the first.
            plot.Spots[spot], plot.Spots[(spot + step) % plot.Spots.Length], plot.Spots[(spot + 2 * step) % plot.Spots.Length],
            random.Pick(lexicon.Hides), random.Pick(lexicon.Sounds));
    }

    private static Character Person(ref StoryRandom random, Lexicon lexicon, bool people, string? otherThan, string? otherKind)
    {
        bool female = random.Chance(50);
        Character[] kind = female ? lexicon.Girl : lexicon.Boy;
        if (!people)
            do kind = lexicon.AnimalKinds[random.Below(lexicon.AnimalKinds.Count)];
            while (kind[0].Kind == otherKind);
        (string[] girls, string[] boys) = people ? lexicon.People : lexicon.Animals;
        string name;
        do name = random.Pick(female ? girls : boys);
        while (name == otherThan);
        return random.Pick(kind) with { Name = name, Pronouns = female ? Pronouns.Female : Pronouns.Male };
    }
}
