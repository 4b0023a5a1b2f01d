using MudBlazor;

namespace NopeGpt.Web.Components;

/// <summary>The dashboard's colours and type: neutral greys, one accent, the system's own fonts. Text and state colours have a contrast of
/// at least 4.5 to 1 on every surface that they stand on (WCAG AA).</summary>
internal static class Theme
{
    private static readonly string[] Fonts = ["system-ui", "-apple-system", "Segoe UI", "Noto Sans", "Liberation Sans", "DejaVu Sans", "Arial", "sans-serif"];

    public static MudTheme Value { get; } = new()
    {
        LayoutProperties = new LayoutProperties { DefaultBorderRadius = "8px" },
        Typography = new Typography
        {
            Default = new DefaultTypography { FontFamily = Fonts, FontSize = "14px", LineHeight = "1.5", LetterSpacing = "0" },
            Button = new ButtonTypography { FontFamily = Fonts, FontSize = "14px", FontWeight = "500", LetterSpacing = "0", TextTransform = "none" },
            H6 = new H6Typography { FontFamily = Fonts, FontSize = "16px", FontWeight = "600", LetterSpacing = "0" },
            Body1 = new Body1Typography { FontFamily = Fonts, FontSize = "14px", LetterSpacing = "0" },
            Body2 = new Body2Typography { FontFamily = Fonts, FontSize = "14px", LetterSpacing = "0" },
        },
        PaletteLight = new PaletteLight
        {
            Primary = "#0b6e69",
            PrimaryContrastText = "#ffffff",
            Background = "#f6f7f7",
            BackgroundGray = "#eceeef",
            Surface = "#ffffff",
            TextPrimary = "#16191d",
            TextSecondary = "#545d66",
            LinesDefault = "#e4e7e9",
            LinesInputs = "#868f98",
            Divider = "#e4e7e9",
            TableHover = "#f6f7f7",
            ActionDefault = "#545d66",
            Success = "#1a6b3a",
            Warning = "#8a5300",
            Error = "#b3261e",
            Info = "#2457a6",
        },
        PaletteDark = new PaletteDark
        {
            Primary = "#4fd1c5",
            PrimaryContrastText = "#04211f",
            Background = "#0d1012",
            BackgroundGray = "#1f2529",
            Surface = "#14181b",
            TextPrimary = "#e6e9eb",
            TextSecondary = "#9ba5ae",
            LinesDefault = "#252b30",
            LinesInputs = "#6b757e",
            Divider = "#252b30",
            TableHover = "#191e22",
            ActionDefault = "#9ba5ae",
            Success = "#6fcf8f",
            Warning = "#f2b84b",
            Error = "#ff8f87",
            Info = "#8cb4ff",
        },
    };
}
