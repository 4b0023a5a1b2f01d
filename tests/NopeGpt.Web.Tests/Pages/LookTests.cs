using Bunit;
using Microsoft.AspNetCore.Components;
using MudBlazor;
using MudBlazor.Utilities;
using NopeGpt.Web.Components;
using NopeGpt.Web.Components.Layout;
using NopeGpt.Web.Components.Pages;
using NopeGpt.Web.Components.Parts;

namespace NopeGpt.Web.Tests.Pages;

public sealed class LookTests
{
    public static TheoryData<string, bool> Inks
    {
        get
        {
            TheoryData<string, bool> inks = [];
            foreach (string ink in new[] { nameof(Palette.TextPrimary), nameof(Palette.TextSecondary), nameof(Palette.Primary), nameof(Palette.Success), nameof(Palette.Warning), nameof(Palette.Error) })
            {
                inks.Add(ink, false);
                inks.Add(ink, true);
            }
            return inks;
        }
    }

    [Theory]
    [MemberData(nameof(Inks))]
    public void Text_has_the_contrast_of_WCAG_AA_on_every_surface(string ink, bool dark)
    {
        Palette palette = dark ? Theme.Value.PaletteDark : Theme.Value.PaletteLight;
        MudColor color = (MudColor)typeof(Palette).GetProperty(ink)!.GetValue(palette)!;
        foreach (MudColor surface in new[] { palette.Background, palette.BackgroundGray, palette.Surface, palette.TableHover }) Assert.True(Contrast(color, surface) >= 4.5, $"{ink} {color} on {surface}: {Contrast(color, surface):0.00}");
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void The_ink_of_tokens_can_be_read_on_each_of_their_colours_and_neighbours_differ(bool dark)
    {
        string css = File.ReadAllText(Path.Combine(Repository(), "NopeGpt.Web", "wwwroot", "css", "tokens.css"));
        string rule = css.Split(dark ? ":root[data-theme=\"dark\"]" : ":root", 2)[1].Split('}')[0];
        MudColor[] colors = [.. System.Text.RegularExpressions.Regex.Matches(rule, @"--tok-\d: (#[0-9a-f]{6})").Select(m => new MudColor(m.Groups[1].Value))];
        Assert.Equal(5, colors.Distinct().Count());
        Palette palette = dark ? Theme.Value.PaletteDark : Theme.Value.PaletteLight;
        foreach (MudColor color in colors) Assert.True(Contrast(palette.TextPrimary, color) >= 4.5, $"{color}: {Contrast(palette.TextPrimary, color):0.00}");
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Filled_buttons_and_edges_of_fields_can_be_told_apart(bool dark)
    {
        Palette palette = dark ? Theme.Value.PaletteDark : Theme.Value.PaletteLight;
        Assert.True(Contrast(palette.PrimaryContrastText, palette.Primary) >= 4.5);
        Assert.True(Contrast(palette.LinesInputs, palette.Surface) >= 3);
    }

    [Fact]
    public async Task The_frame_has_the_four_providers_a_way_to_each_part_and_the_switch_of_the_theme()
    {
        await using PageHost host = await PageHost.StartAsync();
        host.Page.JSInterop.Setup<bool>("nopeTheme.isDark").SetResult(true);
        IRenderedComponent<MainLayout> layout = host.Page.Render<MainLayout>(p => p.Add(l => l.Body, (RenderFragment)(b => b.AddContent(0, "the page"))));
        layout.WaitForAssertion(() => Assert.Contains("the page", layout.Markup, StringComparison.Ordinal));
        Assert.Contains("--mud-palette-background: rgba(13,16,18,1)", layout.FindComponent<MudThemeProvider>().Markup, StringComparison.Ordinal);
        Assert.True(layout.HasComponent<MudPopoverProvider>() && layout.HasComponent<MudDialogProvider>() && layout.HasComponent<MudSnackbarProvider>());
        Assert.Equal(["", "runs", "datasets", "tokenizers", "chat"], layout.FindAll("nav a").Select(a => a.GetAttribute("href")));

        await layout.Find("[aria-label='Switch to the light theme']").ClickAsync(new());
        Assert.Equal(false, host.Page.JSInterop.VerifyInvoke("nopeTheme.choose").Arguments.Single());
        await layout.InvokeAsync(() => layout.Instance.ThemeChanged(false));
        Assert.Contains("--mud-palette-background: rgba(246,247,247,1)", layout.FindComponent<MudThemeProvider>().Markup, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_page_that_fails_is_told_in_a_sentence_and_can_be_shown_again()
    {
        await using PageHost host = await PageHost.StartAsync();
        bool broken = true;
        RenderFragment body = b => b.AddContent(0, broken ? throw new InvalidOperationException("the reason") : "well again");
        IRenderedComponent<MainLayout> layout = host.Page.Render<MainLayout>(p => p.Add(l => l.Body, body));
        layout.WaitForAssertion(() => Assert.Contains("the reason", layout.Find("[role=alert]").TextContent, StringComparison.Ordinal));
        broken = false;
        await layout.FindAll("button").Single(b => b.TextContent == "Show it again").ClickAsync(new());
        layout.WaitForAssertion(() => Assert.Contains("well again", layout.Markup, StringComparison.Ordinal));
    }

    [Fact]
    public async Task An_address_without_a_page_says_so()
    {
        await using PageHost host = await PageHost.StartAsync();
        Assert.Equal("There is nothing here", host.Page.Render<NotFound>().Find("h1").TextContent);
    }

    [Theory]
    [InlineData(0, "0")]
    [InlineData(999, "999")]
    [InlineData(1240, "1.24k")]
    [InlineData(999_600, "1.00M")]
    [InlineData(2_360_000, "2.36M")]
    [InlineData(2.03e13, "20.3T")]
    [InlineData(double.NaN, "NaN")]
    [InlineData(double.NegativeInfinity, "-∞")]
    public void Counts_have_three_digits_and_a_unit(double value, string text) => Assert.Equal(text, Figures.Count(value));

    [Theory]
    [InlineData(0.00187, "0.00187")]
    [InlineData(0.002, "0.002")]
    [InlineData(0.00002, "2.0e-5")]
    [InlineData(0.648, "0.648")]
    [InlineData(12.5, "12.5")]
    public void Small_numbers_keep_their_digits(double value, string text) => Assert.Equal(text, Figures.Small(value));

    [Theory]
    [InlineData(4, "a few seconds left")]
    [InlineData(33, "35 s left")]
    [InlineData(725, "12 min left")]
    [InlineData(7260, "2 h 01 min left")]
    [InlineData(double.NaN, "time unknown")]
    public void The_time_left_is_coarse(double seconds, string text) => Assert.Equal(text, Figures.Left(seconds));

    private static string Repository()
    {
        DirectoryInfo folder = new(AppContext.BaseDirectory);
        while (!File.Exists(Path.Combine(folder.FullName, "NopeGpt.sln"))) folder = folder.Parent!;
        return folder.FullName;
    }

    // WCAG 2.2, relative luminance and contrast ratio.
    private static double Contrast(MudColor a, MudColor b)
    {
        (double x, double y) = (Luminance(a), Luminance(b));
        return (Math.Max(x, y) + 0.05) / (Math.Min(x, y) + 0.05);
    }

    private static double Luminance(MudColor color) => (0.2126 * Linear(color.R)) + (0.7152 * Linear(color.G)) + (0.0722 * Linear(color.B));

    private static double Linear(byte channel)
    {
        double c = channel / 255.0;
        return c <= 0.04045 ? c / 12.92 : Math.Pow((c + 0.055) / 1.055, 2.4);
    }
}
